"""Figure 8: pure synthetic images and real-to-synthetic ones, with the boxes of their synthetic cells."""

from pathlib import Path
from typing import Any

from ..annotations import DataSet
from ..data import image_files
from ..data.image_files import Pixels
from ..data.preview import with_boxes
from ..errors import UserError
from ..evaluate import sheet
from ..foundation.names import BUNDLED
from ..synthesis import synthesize
from ..synthesis.settings import PipelineSettings

KINDS = {"pure": "pure synthetic", "real-to-synthetic": "real-to-synthetic"}
SIDE = 512
"""Largest side of an image in the figure, pixels."""


def figure8(
    source: Path,
    out: Path,
    *,
    count: int = 3,
    settings: PipelineSettings = synthesize.DEFAULT,
    foundation: str = BUNDLED,
    normal: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    label: str | None = None,
    device: str = "cpu",
) -> Path:
    """Make the data sets `out/pure` and `out/real-to-synthetic`, and `out/figure8.png` with a row of each; return it.

    Args:
        source: real normal images: a COCO data set or a folder; the first `count` are edited.
        out: folder; the same call continues there.
        count: images of each kind.
        settings: of both; `scale` is that of the real images.
        foundation: Stable Diffusion of both stages.
        normal: LoRA of stage 1, or 'none'.
        cell: the Abnormal Cell Synthesizer.
        detector: of NILM cells.
        label: of a COCO data set, take images of this image-level label.
        device: cpu, cuda ...

    Raises UserError if `source` has fewer than `count` images that can be edited.
    """
    models: dict[str, Any] = {"foundation": foundation, "cell": cell, "detector": detector, "device": device}
    made = {
        "pure": synthesize.synthesize(out / "pure", count=count, settings=settings, normal=normal, **models),
        "real-to-synthetic": synthesize.edit(
            source, out / "real-to-synthetic", settings=settings, label=label, limit=count, **models
        ),
    }
    shown: list[tuple[Pixels, str]] = []
    for kind, data in made.items():
        if len(data.images) < count:
            raise UserError(f"{out / kind}: {len(data.images)} images could be made, {count} are needed")
        shown += row(data, KINDS[kind])
    sheet.write(out / "figure8.png", shown, columns=count, side=SIDE)
    return out / "figure8.png"


def row(data: DataSet, caption: str) -> list[tuple[Pixels, str]]:
    """Return the images of `data`, each with the boxes of its synthetic cells drawn, and `caption`."""
    return [(with_boxes(image_files.read(data.path(image)), image.cells), caption) for image in data.images]
