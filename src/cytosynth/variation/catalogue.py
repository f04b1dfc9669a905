"""The variations by name, and how an image gets one."""

from ..errors import UsageError
from ..registry import VARIATIONS
from .view import Variation, View, generator


def variation(name: str) -> Variation:
    """Return the variation `name`; raise UsageError if there is none."""
    found = VARIATIONS.load(name)
    assert isinstance(found, Variation) and found.name == name
    return found


def varied(view: View, name: str, amount: float, seed: int, image: str) -> View:
    """Return `view` of the image named `image` with `amount` of the variation `name`: the same for the same arguments.

    Raises UsageError for a name that does not exist, or an amount out of its limits.
    """
    chosen = variation(name)
    low, high = chosen.limits
    if not low <= amount <= high:
        raise UsageError(f"variation {name}: {amount} {chosen.unit}; must be between {low} and {high}")
    return chosen.apply(view, amount, generator(seed, image, name))


def at_strength(view: View, name: str, strength: float, seed: int, image: str) -> tuple[View, float]:
    """Return `view` with the variation `name` at a `strength` in 1..5, and the amount that this came to."""
    amount = variation(name).of_strength(strength, generator(seed, image, name, "amount"))
    return varied(view, name, amount, seed, image), amount
