"""The synthetic images of an arm at one size of one chain: made once, stored in the run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bethesda import NILM
from ...data.formats import coco
from ...data.sources import Source
from ...errors import UserError
from ...io import atomic, plain
from ...io.progress import console
from ...provenance import said
from ...synthesis import models, synthesize
from ...synthesis.fast import STAGES, Fast
from ...synthesis.models import Models
from ...synthesis.pasting.paste import paste
from ...synthesis.pipeline import Engine
from ...synthesis.settings import PipelineSettings
from ...synthesis.synthesize import Load
from .. import leaks
from .recipe import EfficiencyRecipe, Strategy

FOLDER = "sets"


def made(
    recipe: EfficiencyRecipe,
    name: str,
    place: tuple[int, int],
    subset: Path,
    run: Path,
    data_root: Path,
    device: str = "cpu",
    load: Load | None = None,
) -> list[Path]:
    """Return the folders of the synthetic images of the arm `name`, made or continued in `run`/sets.

    Complete sets are not checked again.

    Args:
        recipe: of the whole.
        name: of the arm.
        place: number of the chain, and N.
        subset: folder of the N real images.
        run: folder.
        data_root: of the data sets.
        device: for the models.
        load: loads the models; None: they are loaded each time.

    Raises UserError if an image was made from a test image.
    """
    arm, (chain, size) = recipe.arms[name], place
    if arm.kind == "none":
        return []
    out = run / FOLDER / f"chain-{chain}" / f"n-{size}" / arm.key
    done = out.with_name(f"{out.name}.json")
    if done.exists():
        return [out.parent / str(folder) for folder in plain.load(done)["folders"]]
    load = load or Loader()
    count = round(arm.ratio * size)
    weights = hard_weights(run, place, recipe.making.category_weights) if arm.hard else {}
    if arm.kind == "fields":
        named, making = _asked(recipe, arm, place, fields=True)
        settings = making.model_copy(update={"seed": _seed(recipe, place)} | weights)
        console.print(f"{name}: fields, chain {chain}, N = {size}")
        synthesize.synthesize(
            out, count=count, settings=settings, device=device, data_root=data_root, load=load, **named
        )
        folders = [out]
    elif arm.kind == "edited":
        console.print(f"{name}: edited images, chain {chain}, N = {size}")
        folders = _edited(recipe, arm, place, count, subset, out, data_root, device, weights, load)
    else:
        like = made(recipe, arm.like, place, subset, run, data_root, device, load)
        pasted = out if arm.kind == "pasted" else out.with_name(f"{out.name}-pasted")
        if not (pasted / coco.FILE).exists():
            source = Source(root=str(subset.resolve()), scale=recipe.real.scale, split="all")
            settings_ = recipe.pasting.model_copy(update={"seed": _seed(recipe, place)})
            paste(source, pasted, data_root, like=like, settings=settings_, categories=recipe.categories,
                  keep_abnormal=recipe.arms[arm.like].keep_abnormal)  # fmt: skip
        folders = [pasted]
        if arm.kind == "exemplar":
            leaks.refuse(pasted, [recipe.test], data_root)
            _edited_from(pasted, recipe, arm, place, out, data_root, device, load)
            folders = [out]
    for folder in folders:
        leaks.refuse(folder, [recipe.test], data_root)
    atomic.write_json(done, {"folders": [folder.relative_to(out.parent).as_posix() for folder in folders]})
    return folders


class Loader:
    """Loads models and keeps the last ones, which the rounds of a set and the rows of one generator share."""

    def __init__(self) -> None:
        """Begin with none."""
        self.key = ""
        self.engine: Engine | None = None

    def __call__(self, given: Models) -> Engine:
        """Return the models `given`."""
        settings = given.settings
        key = repr((given.names, given.foundation, given.cell, given.gate, given.detector, given.normal,
                    given.generates, given.data_root, given.device, given.fast, settings.precision,
                    settings.prediction_type, settings.gate))  # fmt: skip
        if self.engine is None or key != self.key:
            self.key, self.engine = key, models.load(given)
        return self.engine


def abnormal(folders: Sequence[Path]) -> tuple[int, int]:
    """Return the number of images, and of boxes of synthetic cells that are not NILM, in the sets in `folders`."""
    images = [image for folder in folders for image in coco.read(folder).images]
    return len(images), sum(
        cell.category != NILM and cell.extra.get("synthetic") is not False for image in images for cell in image.cells
    )


def _edited(
    recipe: EfficiencyRecipe, arm: Strategy, place: tuple[int, int], count: int, subset: Path, out: Path,
    data_root: Path, device: str, weights: dict[str, Any], load: Load,
) -> list[Path]:  # fmt: skip
    """Edit the normal images of `subset`, or all, with another seed in each round, until there are `count`."""
    normal = sum(arm.keep_abnormal or image.normal for image in coco.read(subset).images)
    if not normal:
        raise UserError(f"{subset}: no image without an abnormal cell to edit")
    named, making = _asked(recipe, arm, place)
    folders: list[Path] = []
    for start in range(0, count, normal):
        seed = _seed(recipe, place) + len(folders)
        changes = {"scale": recipe.real.scale, "seed": seed, "keep_abnormal": arm.keep_abnormal} | weights
        folders.append(out / f"round-{len(folders)}")
        synthesize.edit(
            subset, folders[-1], settings=making.model_copy(update=changes), limit=count - start, device=device,
            data_root=data_root, load=load, **named,
        )  # fmt: skip
    return folders


def _edited_from(
    pasted: Path,
    recipe: EfficiencyRecipe,
    arm: Strategy,
    place: tuple[int, int],
    out: Path,
    data_root: Path,
    device: str,
    load: Load,
) -> None:
    """Edit every pasted cell of the set `pasted` into its own category, with a strength of the arm's range."""
    plan = out.with_name(f"{out.name}.plan.json")
    rng = np.random.default_rng([_seed(recipe, place), 5])
    images = []
    for name, record in sorted(said(pasted).items()):
        cells = [
            {"bbox_xyxy": cell["bbox_xyxy"], "category": cell["category"], "seed": int(rng.integers(2**32)),
             "strength": round(float(rng.uniform(*arm.strength)), 3)}
            for cell in record["cells"]
        ]  # fmt: skip
        images.append({"file_name": name, "original": name, "cells": cells})
    # The region of an edit is the box alone: boxes of pasted cells lie apart, regions larger than they need not. All of
    # it has the strength of the arm.
    named, making = _asked(recipe, arm, place)
    named.pop("detector", None)
    editing = making.cell.model_copy(update={"box_scale": 1.0, "fall": 0.0})
    atomic.write_json(plan, {"version": 1, "settings": {"cell": editing.model_dump(mode="json")}, "images": images})
    making = making.model_copy(update={"scale": 1.0, "cell": editing})
    synthesize.edit(
        pasted / "images", out, plan=plan, settings=making, device=device, data_root=data_root, load=load,
        **named,
    )  # fmt: skip


def _asked(
    recipe: EfficiencyRecipe, arm: Strategy, place: tuple[int, int], *, fields: bool = False
) -> tuple[dict[str, Any], PipelineSettings]:
    """Return the models of the row at `place` by role, the gate of the arm among them, and the settings of the making.

    Those of stage 1 are for `fields` alone. Distilled weights set sampler, steps and guidance, and the fall of the
    strength if the recipe sets none.
    """
    named: dict[str, Any] = names(recipe, place) | {"gate": arm.gate}
    given = {stage: named.pop(f"fast_{stage}", None) for stage in STAGES}
    if not fields:
        named.pop("normal", None)
        given["normal"] = None
    fast = Fast(**given)
    return named | {"fast": fast}, fast.over(recipe.making)


def names(recipe: EfficiencyRecipe, place: tuple[int, int]) -> dict[str, str]:
    """Return the name of the model of each role in the row at `place` (chain, N)."""
    return {role: name.format(chain=place[0], n=place[1]) for role, name in recipe.models.items()}


def _seed(recipe: EfficiencyRecipe, place: tuple[int, int]) -> int:
    """Return the seed of the synthetic images of a row: different from the seeds of all other rounds."""
    return 1_000_000 * (recipe.seed + place[0]) + 1_000 * place[1] + recipe.making.seed


def hard(missed: Mapping[str, float], floor: float = 0.1) -> dict[str, float]:
    """Return weights of categories by the share of their cells that are `missed` (0..1), none below `floor`."""
    return {name: round(max(share, floor), 4) for name, share in missed.items()}


def hard_file(run: Path, place: tuple[int, int]) -> Path:
    """Return where the weights of the categories of a row are kept."""
    return run / FOLDER / f"chain-{place[0]}" / f"n-{place[1]}" / "hard.json"


def hard_weights(run: Path, place: tuple[int, int], usual: Mapping[str, float]) -> dict[str, Any]:
    """Return the stored weights of the categories of a row as a setting of the pipeline.

    NILM keeps the share that it has in the `usual` weights.
    """
    found = {str(key): float(value) for key, value in plain.load(hard_file(run, place)).items()}
    others = sum(usual.values()) - usual.get(NILM, 0.0)
    if others and NILM in usual:
        found[NILM] = usual[NILM] / others * sum(found.values())
    return {"category_weights": found}
