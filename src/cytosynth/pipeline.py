"""What `synthesize` and `edit` do: load the models by name and run the pipeline on their jobs."""

from pathlib import Path
from typing import Any

from .cell.edit import CellEditor
from .data import coco, images
from .detect import model as detectors
from .errors import UserError
from .field import DataSet
from .foundation.load import bundled
from .foundation.recipe import BUNDLED
from .normal.generate import NormalImageGenerator
from .settings import PipelineSettings, check
from .synthesize import Pipeline, fields, own_images, run

DEFAULT = PipelineSettings()


def synthesize(
    out: Path,
    *,
    count: int,
    settings: PipelineSettings = DEFAULT,
    foundation: str = BUNDLED,
    normal: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    device: str = "cpu",
) -> DataSet:
    """Make `count` wholly synthetic annotated images into `out`; see the verb `synthesize`."""
    check(settings)
    generator = NormalImageGenerator(foundation, None if normal == "none" else normal, device)
    pipeline = _pipeline(foundation, cell, detector, device, generator, normal)
    return run(pipeline, list(fields(generator, count, settings)), settings, out)


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
    pictures, licences = _pictures(source, label)
    pipeline = _pipeline(foundation, cell, detector, device, None, "")
    return run(pipeline, list(own_images(pictures[:limit], settings)), settings, out, licences=licences, strict=strict)


def _pictures(source: Path, label: str | None) -> tuple[list[tuple[Path, dict[str, Any]]], tuple[dict[str, Any], ...]]:
    """Return the image files of a COCO data set with what is said of each, or those of a plain folder."""
    if (source / coco.FILE).exists():
        data = coco.read(source)
        chosen = [p for p in data.pictures if label is None or p.extra.get("image_level_label") == label]
        if not chosen:
            raise UserError(f"{source}: no image of image-level label {label!r}")
        return [(images.inside(data.images, p.file_name), p.extra) for p in chosen], data.licences
    if label is not None:
        raise UserError(f"{source}: --label needs a COCO data set ({coco.FILE})")
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in images.SUFFIXES)
    if not files:
        raise UserError(f"{source}: no image there ({', '.join(sorted(images.SUFFIXES))})")
    return [(path, {}) for path in files], ()


def _pipeline(
    foundation: str,
    cell: str,
    detector: str,
    device: str,
    generator: NormalImageGenerator | None,
    normal: str,
) -> Pipeline:
    found = detectors.load(bundled("detector") if detector == BUNDLED else Path(detector))
    found.network.to(device)
    names = {role: Path(name).name for role, name in (("cell", cell), ("detector", detector), ("normal", normal))}
    return Pipeline(found, CellEditor.load(foundation, cell, device), generator, names)
