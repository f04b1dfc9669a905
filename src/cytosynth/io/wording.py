"""How messages quote values, list names and count things."""

from collections.abc import Iterable
from typing import Any

SHOWN = 10
"""Names listed in a message at most."""


def listed(names: Iterable[Any]) -> str:
    """Return `names` in order for a message, shortened if there are many."""
    ordered = sorted(map(said, names))
    return ", ".join(ordered[:SHOWN]) + (f", ... ({len(ordered)})" if len(ordered) > SHOWN else "") or "none"


def amount(count: int, noun: str) -> str:
    """Return `count` of `noun` in words."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def said(value: Any) -> str:
    """Return `value` for a message, in bounded length."""
    if isinstance(value, str | int | float | bool | None):
        return repr(value)[:60]
    return f"a {type(value).__name__}"
