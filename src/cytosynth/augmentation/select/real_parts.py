"""The real images for training and for validation, and the check that no test image is among them."""

from pathlib import Path
from typing import Any

from ...data import split
from ...data.formats import findings
from ...data.read import read
from ...data.sources import Source
from ...data.sources import part as part_of
from ...detection import transfer
from ...errors import UserError
from ...io import wording
from ...io.progress import console
from .. import leaks
from .recipe import MEASURES, TEST, SelectRecipe


def held(recipe: SelectRecipe, data_root: Path) -> list[Source]:
    """Return the images that no synthetic image may be made from: the validation and test parts of every real set."""
    found = [recipe.validation]
    for root, parts in _by_root(recipe).items():
        place = data_root / root
        data = read(place, note=findings.ignore)
        divided = bool(split.with_parts(data, place).parts) or parts != {"all"}
        if divided and TEST in split.names(data, place):
            found.append(Source(root=root, split=TEST))
    return found


def check(recipe: SelectRecipe, data_root: Path) -> int:
    """Return the number of real training images.

    Raises UsageError if a training or validation image is held out; UserError if the validation images have no cell of
    the categories that are measured.
    """
    tests = _tests(recipe, data_root)
    leaks.apart("real", recipe.real, [recipe.validation, *tests], data_root)
    leaks.apart("validation", [recipe.validation], tests, data_root)
    fitted = _names(recipe.real, data_root)
    if not fitted:
        raise UserError(f"{data_root / recipe.real[0].root}: no image in part '{recipe.real[0].split}'")
    wanted = set(recipe.categories) if recipe.measure in MEASURES else {recipe.measure}
    root = data_root / recipe.validation.root
    images = part_of(recipe.validation, data_root)
    if not any(cell.category in wanted for image in images for cell in image.cells):
        part = recipe.validation.split
        raise UserError(
            f"{root}: no cell of {' or '.join(sorted(wanted))} in part '{part}', so it cannot be used for validation"
        )
    return len(fitted)


def begins(recipe: SelectRecipe) -> dict[str, Any]:
    """Return the initial weights that `recipe` sets, by what begins from them; another program has its own."""
    return {} if recipe.command else {"every training": recipe.training.get("weights")}


def check_weights(recipe: SelectRecipe, data_root: Path) -> None:
    """Check that no initial weights have seen a test image; say if they have seen validation images.

    The latter raises all scores, and may hide what synthetic images add, but nothing is reported on these images.
    Raises as `leaks.begun` does.
    """
    weights = begins(recipe).values()
    leaks.begun(weights, _tests(recipe, data_root), data_root)
    for name in weights:
        if not (isinstance(name, str) and name and transfer.is_detector(name)):
            continue
        if known := leaks.shared(name, "detector", [recipe.validation], data_root):
            images = f"{wording.amount(len(known), 'validation image')} ({known[0]})"
            console.print(
                f"weights={name}: trained or chosen on {images}: scores there are too high, gains may be hidden",
                soft_wrap=True,
            )


def _tests(recipe: SelectRecipe, data_root: Path) -> list[Source]:
    return [source for source in held(recipe, data_root) if source.split == TEST]


def _by_root(recipe: SelectRecipe) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for source in (*recipe.real, recipe.validation):
        found.setdefault(source.root, set()).add(source.split)
    return found


def _names(sources: list[Source], data_root: Path) -> set[tuple[str, str]]:
    """Return folder and file name of the images of `sources`."""
    found = set()
    for source in sources:
        root = (data_root / source.root).resolve()
        images = part_of(source, data_root)
        found |= {(str(root), image.file_name) for image in images}
    return found
