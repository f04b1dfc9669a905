"""What `synthesize` and `edit` do: load the models by name and run the pipeline on their jobs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .bethesda import NILM
from .cell.edit import CellEditor
from .data import coco, images
from .detect import model as detectors
from .errors import UserError
from .field import DataSet
from .foundation.load import available, bundled
from .foundation.recipe import BUNDLED
from .normal.generate import NormalImageGenerator
from .settings import PipelineSettings, check
from .synthesize import Pipeline, fields, own_images, run
from .training.progress import console

DEFAULT = PipelineSettings()


def synthesize(
    out: Path,
    *,
    count: int,
    start: int = 0,
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    normal: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    device: str = "cpu",
) -> DataSet:
    """Make the images `start` to `start + count - 1` into `out`; see the verb `synthesize`."""
    check(settings)
    generator = NormalImageGenerator(foundation, None if normal == "none" else normal, device)
    pipeline = _pipeline(foundation, cell, detector, device, generator, normal)
    return run(pipeline, list(fields(generator, range(start, start + count), settings)), settings, out)


def edit(
    source: Path,
    out: Path,
    *,
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    device: str = "cpu",
    label: str | None = None,
    limit: int | None = None,
    strict: bool = False,
) -> DataSet:
    """Edit cells of the images of `source` into abnormal ones, into `out`; see the verb `edit`."""
    check(settings)
    own = _own(source, label)
    pipeline = _pipeline(foundation, cell, detector, device, None, "")
    jobs = list(own_images(own.pictures[:limit], settings))
    return run(pipeline, jobs, settings, out, licences=own.licences, derived_from=own.info, strict=strict)


@dataclass(frozen=True)
class _Own:
    """The user's images: name and path of each and what is said of it, and what is said of the whole."""

    pictures: list[tuple[str, Path, dict[str, Any]]]
    licences: tuple[dict[str, Any], ...] = ()
    info: dict[str, Any] = field(default_factory=dict)


def _own(source: Path, label: str | None) -> _Own:
    """Return the normal pictures of a COCO data set, or all images of a plain folder."""
    if (source / coco.FILE).exists():
        data = coco.read(source)
        wanted = [p for p in data.pictures if label is None or p.extra.get("image_level_label") == label]
        if not wanted:
            raise UserError(f"{source}: no image of image-level label {label!r}")
        normal = [p for p in wanted if all(cell.category == NILM for cell in p.cells)]
        if len(normal) < len(wanted):
            console.print(f"{len(wanted) - len(normal)} images with annotated abnormal cells are left out")
        if not normal:
            raise UserError(f"{source}: every image has annotated abnormal cells; normal ones are needed")
        chosen = [(p.file_name, images.inside(data.images, p.file_name), p.extra) for p in normal]
        return _Own(chosen, data.licences, data.info)
    if label is not None:
        raise UserError(f"{source}: --label needs a COCO data set ({coco.FILE})")
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in images.SUFFIXES)
    if not files:
        raise UserError(f"{source}: no image there ({', '.join(sorted(images.SUFFIXES))})")
    return _Own([(path.name, path, {}) for path in files])


def _pipeline(
    foundation: str, cell: str, detector: str, device: str, generator: NormalImageGenerator | None, normal: str
) -> Pipeline:
    found = detectors.load(bundled("detector") if detector == BUNDLED else Path(detector))
    found.network.to(available(device))
    given = {"cell": cell, "detector": detector, "foundation": foundation, "normal": normal}
    names = {role: name if name == BUNDLED else _short(name) for role, name in given.items()}
    return Pipeline(found, CellEditor.load(foundation, cell, device), generator, names)


def _short(name: str) -> str:
    """Return the last part of a local path, marked as such; a hub id stays as it is."""
    return f"own:{Path(name).name}" if Path(name).exists() else name
