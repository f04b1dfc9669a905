"""A plan: which cell of which image becomes which category, by hand (Section III-C, Figure 7). `plan.json`, validated
strictly.

Every run writes one. An image that is made again from it is the same to the bit; if one cell is changed, the other
cells and the background stay the same to the bit. That needs the same models, which the plan names but does not
contain.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import boxes
from ..annotations import Box
from ..bethesda import ABNORMAL
from ..cell import patch
from ..cell.settings import EditSettings
from ..data import file_names
from ..errors import UserError
from ..foundation.names import PAPER_GUIDANCE, EngineName, PrecisionSetting, PredictionType
from ..io import atomic, plain
from ..normal.settings import GenerateSettings
from .settings import PipelineSettings

FILE = "plan.json"
CELL = ("bbox_xyxy", "category", "seed", "strength")
"""What a plan says of a cell."""
LARGEST = 2**63
"""Seeds and numbers of fields are below this."""


class PlanProblem(UserError):
    """A plan that cannot be followed; the message names the file, the image, the cell and what would be right."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NamedBox(_Strict):
    """A cell's box (xyxy pixels of the image as it is edited) and category."""

    bbox_xyxy: list[float] = Field(min_length=4, max_length=4)
    category: str

    @property
    def box(self) -> Box:
        """The box as a tuple."""
        x0, y0, x1, y1 = self.bbox_xyxy
        return x0, y0, x1, y1


class PlannedCell(NamedBox):
    """A cell to be edited: its box (xyxy pixels, as annotated), its new category, and the seed of its noise.

    Its own `strength` replaces that of the settings.
    """

    seed: int = Field(ge=0, lt=LARGEST)
    strength: float | None = Field(default=None, gt=0, le=1)


class PlannedField(_Strict):
    """A generated field: number `index` of `seed`."""

    seed: int = Field(ge=0, lt=LARGEST)
    index: int = Field(ge=0, lt=LARGEST)


class PlannedImage(_Strict):
    """An image to be made: of a generated `field`, or of the user's file `original`.

    `left_out` are annotated abnormal cells of the original that are not annotated, although others are kept.
    """

    file_name: str
    generated: PlannedField | None = None
    original: str | None = None
    original_sha256: str = ""
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    cells: list[PlannedCell] = Field(default=[], max_length=1000)
    left_out: list[NamedBox] | None = Field(default=None, max_length=1000)


class PlanSettings(BaseModel):
    """The settings on which the pixels depend."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    normal: GenerateSettings = GenerateSettings()
    cell: EditSettings = EditSettings()
    scale: float = Field(default=1.0, gt=0, le=8)
    precision: PrecisionSetting = "fp32"
    compiled: bool = False
    engine: EngineName | None = "torch"
    threads: int | None = Field(default=None, ge=1, le=4096)
    prediction_type: PredictionType | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_it_was(cls, values: Any) -> Any:
        """Switch off features that plans of earlier versions did not have, so that they make the same pixels."""
        if not isinstance(values, dict):
            return values
        normal, cell = values.get("normal"), values.get("cell")
        if isinstance(normal, dict) and "steps" in normal:
            values = values | {"normal": {"low_frequencies": False, "guidance_scale": PAPER_GUIDANCE} | normal}
        if not isinstance(cell, dict) or "grain" not in cell:
            return values
        return values | {"cell": {"stain": False, "outline": "box", "nucleus_scale": {}, "fall": 0.0} | cell}


class Plan(_Strict):
    """What `plan.json` holds; `models` are those with which it was made."""

    version: Literal[1]
    settings: PlanSettings = PlanSettings()
    models: dict[str, str] = {}
    images: list[PlannedImage] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that identify the plan, whatever the layout of its file."""
        text = self.model_dump_json(include={"images"})
        for absent in (',"strength":null', ',"left_out":null'):
            text = text.replace(absent, "")  # as before there were any
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def base(self) -> PipelineSettings:
        """Return the settings of a run that follows the plan."""
        normal = self.settings.normal
        if normal.low_frequencies:  # if the adapter has them: one of another foundation may not
            normal = normal.model_copy(update={"low_frequencies": None})
        return PipelineSettings(**(dict(self.settings) | {"normal": normal}))


def read(path: Path, categories: Sequence[str] | None = ABNORMAL) -> Plan:
    """Return the plan in `path`, for a synthesizer of `categories`; None: of any.

    Raises PlanProblem for a file that is missing, larger than 512 MiB, no JSON, too deep, with a name given twice, NaN
    or a number that is too large; for a field that does not exist or is not of its kind; for an unknown category; for a
    file name that is unsafe or used twice; and for boxes that are empty, too large for a patch, or overlap.
    """
    try:
        text = plain.text(path, plain.MAX_BYTES)
        values = json.loads(plain.counted(text), parse_constant=_no_constant, object_pairs_hook=_once)
        plan = Plan.model_validate(values)
    except ValidationError as error:
        raise PlanProblem(f"{path}: {_reason(error, values)}") from None
    except RecursionError:
        raise PlanProblem(f"{path}: nested too deeply; a plan has images with cells") from None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)[:120]
        raise PlanProblem(f"{path}: not readable JSON ({said})") from None
    check(plan, path, categories)
    return plan


def check(plan: Plan, path: Path, categories: Sequence[str] | None = ABNORMAL) -> None:
    """Raise PlanProblem, naming `path`, where `plan` contradicts itself: names, categories, boxes that overlap."""
    names: set[str] = set()
    for number, image in enumerate(plan.images):
        _check(image, f"{path}: {place_of(number, image.file_name)}", names, categories)


def write(
    records: Iterable[Mapping[str, Any]], settings: PipelineSettings, models: Mapping[str, str], out: Path
) -> None:
    """Write to `out` the plan by which the images of `records` (lines of `provenance.jsonl`) can be made again."""
    entries = []
    for record in records:
        entry: dict[str, Any] = {"file_name": record["file_name"]}
        if "original" in record:
            entry |= {"original": record["original"], "original_sha256": record["original_sha256"]}
        else:
            entry["generated"] = {"seed": record["seed"], "index": record["key"]}
        entry |= {"width": record["width"], "height": record["height"]}
        entry["cells"] = [{key: cell[key] for key in CELL if key in cell} for cell in record["cells"]]
        entry |= {"left_out": record["left_out"]} if record.get("left_out") else {}
        entries.append(entry)
    used = PlanSettings(**{key: getattr(settings, key) for key in PlanSettings.model_fields})
    content = {"version": 1, "settings": used.model_dump(mode="json"), "models": dict(models), "images": entries}
    atomic.write_json(out / FILE, content)


def _check(image: PlannedImage, where: str, names: set[str], categories: Sequence[str] | None) -> None:
    name = image.file_name
    problem = file_names.unsafe(name) or ("in a folder" if "/" in name else None)
    if not name.endswith(".png"):
        problem = "does not end in .png"
    elif name in names:
        problem = "used twice"
    if problem:
        raise PlanProblem(f"{where}: file_name {problem}")
    names.add(name)
    if (image.generated is None) == (image.original is None):
        raise PlanProblem(f"{where}: give either 'generated' (seed, index) or 'original' (a file name)")
    if image.generated and image.left_out:
        raise PlanProblem(f"{where}: left_out: no effect on a generated field, which has no annotated cells; remove it")
    for index, cell in enumerate(image.cells):
        x0, y0, x1, y1 = cell.box
        reason = ""
        if categories is not None and cell.category not in categories:
            reason = f"unknown category {cell.category[:40]!r}; choose one of {', '.join(categories)}"
        elif not all(map(math.isfinite, cell.box)):
            reason = f"bbox_xyxy {boxes.quoted(cell.box)} is not finite"
        elif x1 <= x0 or y1 <= y0:
            reason = f"bbox_xyxy {boxes.quoted(cell.box)} has no area; x_min, y_min, x_max, y_max is the order"
        elif max(x1 - x0, y1 - y0) > patch.MOST:
            reason = (
                f"bbox_xyxy {boxes.quoted(cell.box)} is too large; at most {patch.MOST:g} pixels a side fit a patch"
            )
        if reason:
            raise PlanProblem(f"{where}: cells[{index}]: {reason}")
    pair = boxes.overlapping([cell.box for cell in image.cells])
    if pair:
        raise PlanProblem(f"{where}: the boxes of cells[{pair[0]}] and cells[{pair[1]}] overlap; move or remove one")


def place_of(number: int, name: str) -> str:
    """Return what messages call the image `name`, entry `number` of `images`."""
    return f"images[{number}] ({name[:80]})"


def _reason(error: ValidationError, values: Any) -> str:
    """Return the first problem of `error` in one line: its place in `values`, the problem, the given value."""
    first = error.errors()[0]
    place = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]]
    if first["loc"][:1] == ("images",) and len(place) > 1:
        entry = values["images"][first["loc"][1]]
        name = entry.get("file_name", "no file_name") if isinstance(entry, dict) else "no image"
        place[1] += f" ({str(name)[:80]}):"
    where = "".join(place).replace(":.", ": ").lstrip(".") or "the whole"
    given = "" if first["type"] == "missing" else f" (got {repr(first['input'])[:60]})"
    return f"{where}: {first['msg'].lower()}{given}".replace("::", ":")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"{twice[:40]!r} is given twice")
    return result
