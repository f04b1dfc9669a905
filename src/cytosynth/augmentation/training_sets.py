"""The synthetic sets of Tables II and III: made once in the run folder, or given; label density."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..annotations import Image
from ..data.sources import Source
from ..data.sources import part as part_of
from ..errors import UserError
from ..evaluate.held_out import HeldOut
from ..io import wording
from ..io.progress import console
from ..normal.recipe import NormalRecipe, preset
from ..normal.train import train_normal
from ..synthesis import synthesize
from . import leaks
from .recipe import CUSTOM, OURS, REAL, REAL_TO_SYNTHETIC, AugmentationRecipe

FOLDERS = {CUSTOM: "custom-diffusion", REAL_TO_SYNTHETIC: "real-to-synthetic", OURS: "ours"}


def gather(recipe: AugmentationRecipe, run: Path, data_root: Path, device: str = "cpu") -> dict[str, list[Source]]:
    """Return the sources of each training set of `recipe`; make the synthetic sets that are not given or there.

    Raises UserError if a set was made from a test image, or has no cell of the categories.
    """
    sources = {REAL: list(recipe.real)}
    for name in recipe.training_sets:
        if name == REAL:
            continue
        given = recipe.sets.get(name)
        folders = [data_root / given] if given else _made(name, recipe, run, data_root, device)
        for folder in folders:
            _cells_in([Source(root=str(folder.resolve()), split="all")], recipe.categories, data_root)
            leaks.refuse(folder, [recipe.test], data_root)
        sources[name] = [*recipe.real, *(Source(root=str(folder.resolve()), split="all") for folder in folders)]
    return sources


def check(recipe: AugmentationRecipe, data_root: Path) -> None:
    """Check the real images before anything is made or trained.

    Raises UsageError if one to train on is a test image too, UserError where there is no cell of the categories.
    """
    leaks.apart("real", recipe.real, [recipe.test], data_root)
    made = [name for name in recipe.training_sets if name != REAL and not recipe.sets.get(name)]
    if REAL_TO_SYNTHETIC in made:
        leaks.apart("normals", [recipe.normals], [recipe.test], data_root)
    if CUSTOM in made and not recipe.models.get("custom-diffusion"):
        leaks.apart("adapter", _adapter(recipe).data, [recipe.test], data_root)
    _cells_in(recipe.real, recipe.categories, data_root)
    _cells_in([recipe.test], recipe.categories, data_root)


def density(data: Sequence[Source], data_root: Path, categories: Sequence[str]) -> dict[str, float]:
    """Return the number of images of `data`, and of their cells of `categories`: in total, per image, per megapixel, by
    name.

    Pixels are those at the working scale; no image is read. Raises UserError for a part without an image.
    """
    images: list[Image] = []
    area = 0.0
    for source in data:
        found = part_of(source, data_root)
        if not found:
            raise UserError(f"{data_root / source.root}: no image in part '{source.split}'")
        images += found
        area += sum(image.width * image.height for image in found) * source.scale**2 / 1e6
    cells = [cell.category for image in images for cell in image.cells if cell.category in categories]
    by_name = {name: float(cells.count(name)) for name in categories}
    total = float(len(cells))
    return {
        "images": len(images),
        "cells": total,
        "an image": total / len(images),
        "a megapixel": total / area,
    } | by_name


def _made(name: str, recipe: AugmentationRecipe, run: Path, data_root: Path, device: str) -> list[Path]:
    """Return the folders of the synthetic images of the training set `name`, made or continued in `run`/sets."""
    out = run / "sets" / FOLDERS[name]
    named = {role: name for role, name in recipe.models.items() if name is not None}
    models: dict[str, Any] = {role: named[role] for role in ("foundation", "cell", "detector")}
    if name == REAL_TO_SYNTHETIC:
        return _edited(recipe, run, data_root, models, device)
    console.print(f"synthetic images of {name!r}")
    normal = named["normal"] if name == OURS else _custom_diffusion(recipe, run, data_root)
    synthesize.synthesize(
        out, count=recipe.count, settings=recipe.making, normal=normal, device=device, data_root=data_root, **models
    )
    return [out]


def _edited(recipe: AugmentationRecipe, run: Path, data_root: Path, models: dict[str, Any], device: str) -> list[Path]:
    """Edit the real normal images, with another seed in each round, until there are `count`."""
    root = data_root / recipe.normals.root
    found = part_of(recipe.normals, data_root)
    normal = sum(image.normal for image in found)
    if not normal:
        raise UserError(f"{root}: no image without an abnormal cell in part '{recipe.normals.split}'")
    folders: list[Path] = []
    for start in range(0, recipe.count, normal):
        console.print(f"synthetic images of {REAL_TO_SYNTHETIC!r}, round {len(folders) + 1}")
        settings = recipe.making.model_copy(
            update={"scale": recipe.normals.scale, "seed": recipe.making.seed + len(folders)}
        )
        folders.append(run / "sets" / FOLDERS[REAL_TO_SYNTHETIC] / f"round-{len(folders)}")
        synthesize.edit(
            root, folders[-1], settings=settings, part=recipe.normals.split, limit=recipe.count - start,
            device=device, data_root=data_root, **models,
        )  # fmt: skip
    return folders


def _custom_diffusion(recipe: AugmentationRecipe, run: Path, data_root: Path) -> str:
    """Return the Custom Diffusion adapter of the set `R + S (CD)`, trained first if none is given."""
    given = recipe.models.get("custom-diffusion")
    if given:
        return given
    trained = train_normal(_adapter(recipe), run / "custom-diffusion", data_root, held_out=HeldOut)
    return str(trained.completed().selected)


def _adapter(recipe: AugmentationRecipe) -> NormalRecipe:
    """Return the recipe of the Custom Diffusion that is trained if none is given."""
    base = preset(recipe.preset, "custom-diffusion")
    return NormalRecipe.model_validate(base.model_dump() | recipe.adapter | {"foundation": recipe.models["foundation"]})


def _cells_in(data: Sequence[Source], categories: Sequence[str], data_root: Path) -> None:
    """Raise UserError if `data` have no cell of `categories`, naming those that are there."""
    there: set[str] = set()
    for source in data:
        there |= {cell.category for one in part_of(source, data_root) for cell in one.cells}
    if not there & set(categories):
        raise UserError(
            f"{data_root / data[0].root}: no annotated cell of {', '.join(categories)} in part '{data[0].split}' "
            f"(it has {wording.listed(there)}); there is nothing to learn from"
        )
