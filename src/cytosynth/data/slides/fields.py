"""From slides to a data set: fields at x20, chosen by sharpness and number of nuclei, annotations cut along."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...annotations import Cell, DataSet, Image
from ...config import pin
from ...errors import UserError
from ...io import atomic, lock, plain
from ...io.progress import console, meter
from ...io.records import append_line
from ...io.wording import amount
from .. import patients as whose
from .. import split
from ..formats import coco
from ..image_files import ImageProblem
from ..preview import save_png
from ..rename import renamed
from . import annotations, glass, reader, sharpness
from .annotations import Annotated
from .slide import WORKING_MPP, Slide, View

RUN = "tiles.json"
LOOKED = "looked"
"""Folder of what is known of every field, a file a slide; the same command continues from it."""
NOTICE = "Fields of whole slides, cut by CytoSynth"


class FieldSettings(BaseModel):
    """Settings for choosing the fields of a slide."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    side: int = Field(default=1024, ge=64, le=8192, description="side of a field, pixels at x20")
    per_slide: int | None = Field(
        default=None, ge=1, description="maximum number of fields per slide; none: all suitable ones"
    )
    min_nuclei: int = Field(default=10, ge=0, description="minimum number of nuclei in a field without annotated cells")
    min_focus: float = Field(
        default=0.8, ge=0, description="minimum sharpness of a field relative to the slide's median"
    )
    only_annotated: bool = Field(default=False, description="take only fields with an annotated cell")
    mpp: float | None = Field(
        default=None, gt=0, description="micrometres per pixel of slides whose files do not state it"
    )


@dataclass(frozen=True)
class Candidate:
    """A field that may be taken: its corner in pixels of the view, its focus and nuclei, its cells."""

    x: int
    y: int
    worth: sharpness.Worth
    cells: tuple[Cell, ...] = ()


@dataclass
class _Run:
    """The data collected while slides are cut."""

    images: list[Image] = field(default_factory=list)
    categories: dict[str, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def tiles(
    source: Path,
    out: Path,
    settings: FieldSettings,
    *,
    annotated: Path | None = None,
    patients: Path | None = None,
    names: Mapping[str, str] | None = None,
    strict: bool = False,
) -> DataSet:
    """Cut fields from the slides of `source` into the COCO data set `out`, or continue there.

    Args:
        source: a slide or a folder of slides.
        out: gets `images/`, `annotations.json`, `split.json` (parts by slide, or by patient).
        settings: which fields.
        annotated: GeoJSON or COCO of the slides, or the folder of such files; None: they may lie next to the slides.
        patients: CSV with the columns slide and patient, so that all slides of a patient are in one part.
        names: new names of categories.
        strict: stop at a slide that cannot be read, rather than name and count it.

    Raises UsageError when `out` was started with other settings.
    """
    found = reader.gather(source)
    table = _patients(patients, found) if patients else {}
    with lock.run(out, RUN):
        (out / LOOKED).mkdir(exist_ok=True)
        pin(settings.model_dump(mode="json"), out / RUN)
        run = _Run()
        for path in found:
            try:
                _slide(path, out, settings, annotated, table, run)
            except ImageProblem as problem:
                if strict:
                    raise
                run.problems.append(plain.one_line(str(problem).removeprefix(f"{path.parent}/")))
                console.print(f"skipped {run.problems[-1]}", soft_wrap=True)
        info: dict[str, Any] = {"description": NOTICE, "mpp": WORKING_MPP}
        if run.problems:
            info["skipped"] = run.problems
        data = DataSet(out / "images", tuple(run.images), tuple(run.categories), info=info)
        data = renamed(data, names or {}) if names else data
        coco.write(data, out)
        atomic.write_json(out / split.FILE, _parts(data))
        return data


def candidates(view: View, settings: FieldSettings, known: Annotated | None, looked: Path | None) -> list[Candidate]:
    """Return the fields of `view` that are not empty glass, each with its focus and nuclei.

    The results are stored in the file `looked`, if given, one line per field.
    """
    covered = glass.coverage(view)
    colour = glass.glass_colour(view.slide.thumbnail().whole())
    side = settings.side
    width, height = view.size
    corners = [(x, y) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    cells = known.cells if known else ()
    shown = {at: _shown(cells, view, at, side) for at in corners} if cells else {}
    filled = [at for at in corners if covered.any(*at, side, side) or shown.get(at)]
    console.print(
        f"{view.slide.path.name}: {amount(len(corners), 'field')}, {len(corners) - len(filled)} of them empty; "
        f"{covered.empty:.1%} of the slide is empty glass", soft_wrap=True,
    )  # fmt: skip
    before = _looked(looked) if looked else {}
    result = []
    with meter(view.slide.path.name[:40], len(filled), sum(at in before for at in filled)) as bar:
        for x, y in filled:
            if (x, y) not in before:
                found = sharpness.worth(view.read(x, y, side, side), colour)
                if looked:
                    append_line(looked, {"x": x, "y": y, "focus": found.focus, "nuclei": found.nuclei})
                before[x, y] = found
                bar.advance()
            result.append(Candidate(x, y, before[x, y], shown.get((x, y), ())))
    return result


def _shown(cells: tuple[Cell, ...], view: View, at: tuple[int, int], side: int) -> tuple[Cell, ...]:
    """Return the `cells` (level 0) that the field at `at` shows, in its pixels."""
    return tuple(annotations.cut(cells, at[0] * view.factor, at[1] * view.factor, side, view.factor))


def chosen(found: Sequence[Candidate], settings: FieldSettings) -> list[Candidate]:
    """Return the fields to take, in reading order.

    Fields with an annotated cell come first. The others must be as sharp as `min_focus` of the median over fields with
    nuclei, and have `min_nuclei`. Where more are fit than `per_slide`, those taken are spread evenly over the number
    of nuclei: crowded and sparse fields as often as the slide has them.
    """
    with_cells = [one for one in found if any(not cell.crowd for cell in one.cells)]
    fit: list[Candidate] = []
    if not settings.only_annotated:
        focused = [one.worth.focus for one in found if one.worth.nuclei >= max(1, settings.min_nuclei)]
        least = settings.min_focus * float(np.median(focused)) if focused else 0.0
        taken = {(one.x, one.y) for one in with_cells}
        fit = [
            one
            for one in found
            if (one.x, one.y) not in taken and one.worth.nuclei >= settings.min_nuclei and one.worth.focus >= least
        ]
    most = settings.per_slide
    if most is not None:
        with_cells = _spread(with_cells, most)
        fit = _spread(fit, most - len(with_cells))
    return sorted([*with_cells, *fit], key=lambda one: (one.y, one.x))


def _spread(found: list[Candidate], count: int) -> list[Candidate]:
    """Return `count` of `found`, evenly spread over the number of nuclei."""
    if count >= len(found):
        return found
    ordered = sorted(found, key=lambda one: (one.worth.nuclei, one.y, one.x))
    return [ordered[int((index + 0.5) * len(ordered) / count)] for index in range(max(count, 0))]


def _slide(
    path: Path, out: Path, settings: FieldSettings, given: Path | None, table: Mapping[str, str], run: _Run
) -> None:
    """Cut the slide at `path`."""
    with reader.opened(path, settings.mpp) as slide:
        known = annotations.find(path, given, slide.mpp)
        view = slide.at()
        digest = atomic.fingerprint(path)[:12]  # another file of the same name is processed again
        _forget_others(path.stem, digest, out)
        found = candidates(view, settings, known, out / LOOKED / f"{path.stem}-{digest}.jsonl")
        taken = chosen(found, settings)
        if known:
            for cell in known.cells:
                run.categories.setdefault(cell.category)
            if known.left_out:
                console.print(
                    f"{path.name}: {amount(known.left_out, 'outline')} larger than a cell left out", soft_wrap=True
                )
        with meter(f"writing {path.name[:32]}", len(taken)) as bar:
            for one in taken:
                run.images.append(_write(view, slide, one, out, settings, table.get(path.stem), known is not None))
                bar.advance()


def _forget_others(stem: str, digest: str, out: Path) -> None:
    """Remove from `out` what an earlier call made of a file of the same name `stem` with another `digest`."""
    own = re.compile(rf"{re.escape(stem)}_\d+_\d+\.png")
    noted = re.compile(rf"{re.escape(stem)}-[0-9a-f]{{12}}\.jsonl")
    before = [path for path in (out / LOOKED).iterdir() if noted.fullmatch(path.name)]
    for path in before:
        if path.name != f"{stem}-{digest}.jsonl":
            for image in (out / "images").glob("*.png"):
                if own.fullmatch(image.name):
                    image.unlink()
            path.unlink()  # last: a killed call begins again


def _write(
    view: View, slide: Slide, one: Candidate, out: Path, settings: FieldSettings, patient: str | None, known: bool
) -> Image:
    """Write one field, unless it is there, and return it with its cells and its place on the slide."""
    side, stem = settings.side, slide.path.stem
    extra: dict[str, Any] = {
        "slide": stem, "slide_x": round(one.x * view.factor), "slide_y": round(one.y * view.factor),
        "slide_mpp": round(slide.mpp, 6), "mpp": WORKING_MPP, "focus": one.worth.focus, "nuclei": one.worth.nuclei,
        "annotated": known,
    }  # fmt: skip
    if patient is not None:
        extra["patient"] = patient
    name = f"{stem}_{extra['slide_x']}_{extra['slide_y']}.png"
    if not (out / "images" / name).exists():
        save_png(view.read(one.x, one.y, side, side), out / "images" / name)
    return Image(name, side, side, one.cells, extra)


def _parts(data: DataSet) -> dict[str, list[str]]:
    """Return the images of each part: all of a patient, or where none is known of a slide, are in one."""
    parts: dict[str, list[str]] = {name: [] for name in split.FRACTIONS}
    for image in data.images:
        whose = str(image.extra.get("patient", image.extra["slide"]))
        parts[split.assigned(whose)].append(image.file_name)
    return parts


def _patients(path: Path, slides: Sequence[Path]) -> dict[str, str]:
    """Return the patient of each slide by its stem; raise UserError if one of `slides` is missing in the table."""
    table = {Path(slide).stem: patient for slide, patient in whose.table(path, "slide").items()}
    for slide in slides:
        if not table.get(slide.stem):
            raise UserError(f"{path}: no patient for the slide {slide.stem[:80]!r}")
    return table


def _looked(path: Path) -> dict[tuple[int, int], sharpness.Worth]:
    """Return what is known of fields by corner; a line that is not `candidates`' is dropped."""
    known = {}
    for line in plain.lines(path):
        try:
            known[int(line["x"]), int(line["y"])] = sharpness.Worth(float(line["focus"]), int(line["nuclei"]))
        except (KeyError, TypeError, ValueError):
            continue
    return known
