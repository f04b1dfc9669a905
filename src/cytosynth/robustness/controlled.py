"""The controlled synthetic test: the same field with one cell edited to each class, size and place.

Each chosen normal cell appears once unedited and once for each class and size that it is edited to: the first must not
be found as abnormal, the others must. It measures detectors on cells of the generator, not on those of patients.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..annotations import Cell
from ..bethesda import ABNORMAL, NILM
from ..cell.patch import enlarge
from ..data.image_files import Pixels
from ..detection.tiles import most_certain
from ..foundation.names import BUNDLED
from ..io.progress import meter
from ..normal.settings import GenerateSettings
from ..provenance import read_records
from ..registry import VARIATIONS
from ..synthesis.jobs import Job
from ..synthesis.pipeline import Pipeline
from ..synthesis.plan import PlannedCell
from ..synthesis.run import run
from ..synthesis.settings import PipelineSettings
from .recipe import CLEAN

Place = Literal["centre", "edge", "cluster"]
PLACES: tuple[Place, ...] = ("centre", "edge", "cluster")
EDGE = 48
"""Pixels from the border within which a cell's middle is at the edge."""
NEAR, COMPANY = 64, 2
"""A cell is in a cluster when the middles of COMPANY others lie within NEAR pixels of its own."""
MOVING = ("scale", "stitching")
"""Variations that move cells."""
KEY = "controlled"
"""Of the record of an image."""


class ControlledRecipe(BaseModel):
    """Settings of the controlled test: fields, edits and conditions."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fields: int = Field(default=12, ge=1, description="number of normal fields to generate")
    seed: int = Field(
        default=1, ge=0, lt=2**63, description="random seed of the fields; different from that of any training set"
    )
    categories: list[str] = Field(default=list(ABNORMAL), min_length=1)
    sizes: list[float] = Field(default=[0.8, 1.0, 1.25], min_length=1, description="factors on the box of the cell")
    conditions: list[str] = Field(
        default=["clean", "stain-2", "stain-4", "defocus-2", "defocus-4"], description="'clean', or VARIATION-STRENGTH"
    )
    mpp: float = Field(default=0.49, gt=0.05, le=5)
    threshold: float = Field(default=0.3, ge=0, le=1, description="score threshold at which a cell counts as found")
    draws: int = Field(default=500, ge=10, description="bootstrap resamples of the fields")
    making: PipelineSettings = PipelineSettings(normal=GenerateSettings(size=512))
    models: dict[str, str] = Field(
        default={"foundation": BUNDLED, "normal": BUNDLED, "cell": BUNDLED, "detector": BUNDLED},
        description="models that generate the fields, find their normal cells and edit them",
    )

    @field_validator("conditions")
    @classmethod
    def _known(cls, conditions: list[str]) -> list[str]:
        for condition in conditions:
            name, _, strength = condition.rpartition("-")
            if condition != CLEAN and (name not in VARIATIONS or strength not in tuple("12345")):
                raise ValueError(f"unknown condition {condition!r}; give 'clean', or VARIATION-STRENGTH, as defocus-3")
            if name in MOVING:
                raise ValueError(f"{name}: moves cells, so they cannot be matched; leave it out")
        return conditions


def place(cell: Cell, others: Sequence[Cell], size: tuple[int, int]) -> Place:
    """Return where `cell` lies among `others` in an image of `size`: at the edge, in a cluster, else in the centre."""
    x, y = cell.centre
    if min(x, y, size[0] - x, size[1] - y) < EDGE:
        return "edge"
    near = sum(np.hypot(x - other.centre[0], y - other.centre[1]) < NEAR for other in others if other is not cell)
    return "cluster" if near >= COMPANY else "centre"


def make(recipe: ControlledRecipe, pipeline: Pipeline, out: Path) -> list[dict[str, Any]]:
    """Generate the fields, edit one cell at a time into the data set `out`, and return the records of its images.

    Raises UsageError if `out` was started with other settings or models.
    """
    generator, detector = pipeline.generator, pipeline.detector
    if generator is None or detector is None:
        raise ValueError("the controlled test needs a generator of fields and a detector of normal cells")

    @lru_cache(maxsize=64)
    def field(index: int) -> Pixels:
        return generator.field(recipe.seed, index, recipe.making.normal)

    jobs: list[Job] = []
    with meter("fields", recipe.fields) as bar:
        for index in range(recipe.fields):
            found = most_certain(detector.find(field(index), recipe.making.threshold))
            jobs += _jobs(index, found, recipe, field)
            bar.advance()
    settings = recipe.making.model_copy(update={"seed": recipe.seed})
    run(pipeline, jobs, settings, out)
    records = read_records(out, pipeline.categories)
    return [records[job.file_name] for job in jobs if job.file_name in records]


def _jobs(index: int, found: Sequence[Cell], recipe: ControlledRecipe, field: Any) -> Iterator[Job]:
    """Yield the field as it is and every edit of the best-scored normal cell of each place."""
    side = recipe.making.normal.size
    chosen: dict[Place, Cell] = {}
    for cell in sorted(found, key=lambda one: -(one.score or 0)):
        where = place(cell, found, (side, side))
        inside = cell.box[0] >= 0 and cell.box[1] >= 0 and cell.box[2] <= side and cell.box[3] <= side
        if cell.category == NILM and inside:
            chosen.setdefault(where, cell)
    said: dict[str, Any] = {"field": index, "targets": {name: list(cell.box) for name, cell in chosen.items()}}
    if chosen:
        yield Job(f"{index:04d}.png", recipe.seed, index, lambda: field(index), {KEY: said}, planned=())
    for where, cell in chosen.items():
        for number, factor in enumerate(recipe.sizes):
            box = list(map(float, enlarge(cell.box, factor, side, side)))
            for name in recipe.categories:
                file = f"{index:04d}_{where}_{number}_{name}.png"
                seed = int(np.random.default_rng([recipe.seed, index, PLACES.index(where), number]).integers(2**62))
                planned = (PlannedCell(bbox_xyxy=box, category=name, seed=seed),)
                about = {"field": index, "place": where, "size": factor, "category": name}
                yield Job(file, recipe.seed, index, lambda: field(index), {KEY: about}, planned=planned)


def outcomes(
    records: Sequence[Mapping[str, Any]], found: Mapping[str, Sequence[Cell]], threshold: float
) -> list[dict[str, Any]]:
    """Return one entry per edit: its description, and the detection results before and after.

    `before` and `after`: whether an abnormal cell was found there, by its middle; `named`: whether by its class.

    Args:
        records: of the images of the test.
        found: detections by file name.
        threshold: score from which they count.
    """
    fields = {record[KEY]["field"]: record for record in records if "targets" in record[KEY]}
    rows = []
    for record in records:
        about = record[KEY]
        if "targets" in about:
            continue
        origin = fields[about["field"]]
        x0, y0, x1, y1 = origin[KEY]["targets"][about["place"]]
        point = (x0 + x1) / 2, (y0 + y1) / 2
        before = _at(found[origin["file_name"]], point, threshold)
        after = _at(found[record["file_name"]], point, threshold)
        rows.append(dict(about) | {
            "before": before is not None, "after": after is not None, "named": after == about["category"],
        })  # fmt: skip
    return rows


def _at(cells: Sequence[Cell], point: tuple[float, float], threshold: float) -> str | None:
    """Return the category of the best abnormal detection whose box holds `point`; None if there is none."""
    x, y = point
    over = [
        cell
        for cell in cells
        if cell.category != NILM
        and (cell.score or 0) >= threshold
        and cell.box[0] <= x <= cell.box[2]
        and cell.box[1] <= y <= cell.box[3]
    ]
    return max(over, key=lambda cell: cell.score or 0).category if over else None
