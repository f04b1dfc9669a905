"""Renaming the categories of a data set to those of the Bethesda system, which the models use."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..annotations import DataSet, Image
from ..bethesda import CATEGORIES
from ..errors import UsageError
from ..io import wording
from .formats import cells

LABEL = "image_level_label"


def parsed(given: Sequence[str]) -> dict[str, str]:
    """Return the new name of each old one that is `given` as OLD=NEW; raise UsageError if one is no such pair."""
    names: dict[str, str] = {}
    for text in given:
        old, separator, new = (part.strip() for part in text.rpartition("="))
        if not (old and separator and new):
            raise UsageError(f"--rename {text}: expected OLD=NEW")
        try:
            new = cells.category(new)
        except ValueError as error:
            raise UsageError(f"--rename {text}: {error}") from None
        if names.setdefault(old, new) != new:
            raise UsageError(f"--rename {text}: {old} is already renamed to {names[old]}")
    return names


def renamed(data: DataSet, names: Mapping[str, str]) -> DataSet:
    """Return `data` with its categories and image-level labels under their new `names`; several may become one.

    Categories keep their order, each where the first that became it was. Raises UsageError for an old name that is
    none of them.
    """
    found = (image.extra.get(LABEL) for image in data.images)
    labels = sorted({label for label in found if isinstance(label, str)} - {*data.categories})
    for old in names:
        if old not in data.categories and old not in labels:
            there = ", ".join(wording.said(name) for name in [*data.categories, *labels][:12])
            raise UsageError(f"--rename {old}: unknown category; the data set has {there}")

    def image(old: Image) -> Image:
        cells = tuple(replace(cell, category=names.get(cell.category, cell.category)) for cell in old.cells)
        label = old.extra.get(LABEL)
        extra = old.extra | {LABEL: names[label]} if isinstance(label, str) and label in names else old.extra
        return replace(old, cells=cells, extra=extra)

    categories = dict.fromkeys(names.get(name, name) for name in data.categories)
    ids: dict[str, int | str] = {}
    for name, key in data.category_ids.items():
        ids.setdefault(names.get(name, name), key)
    return replace(data, images=tuple(map(image, data.images)), categories=tuple(categories), category_ids=ids)


def strange(data: DataSet) -> str:
    """Return a line on the categories of `data` that no bundled model has, empty if there are none."""
    others = [wording.said(name) for name in data.categories if name not in CATEGORIES]
    if not others:
        return ""
    more = f" and {len(others) - 8} more" if len(others) > 8 else ""
    known = ", ".join(CATEGORIES)
    return (
        f"categories other than {known}: {', '.join(others[:8])}{more}; normal cells must be called NILM (--rename "
        "OLD=NEW), abnormal ones may keep their names, but the bundled models do not know them"
    )
