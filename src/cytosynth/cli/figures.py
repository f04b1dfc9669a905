"""`cytosynth experiment figure7|figure8`."""

from pathlib import Path
from typing import Annotated

import typer

from ..annotations import Box
from ..config import override
from ..errors import UsageError
from ..io import lock
from ..synthesis.settings import PipelineSettings, check
from . import there
from .options import Device, Foundation, Label, Model, Normal, Scale, Settings

Out = Annotated[Path, typer.Argument(help="Folder of the figure.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of fields and edits.")]


def figure7(
    out: Out,
    image: Annotated[Path | None, typer.Option(help="Your own normal image. \\[default: a field is generated]")] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Box of a cell to edit, pixels; may be repeated.")
    ] = None,
    seed: Seed = 0,
    scale: Scale = 1.0,
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Figure 7: three cells of one image edited into each category, and combinations of these edits."""
    boxes = [_box(text) for text in box or []]
    chosen = _settings(seed, scale, settings)
    from ..devices import threads
    from ..experiments.figure7 import from_models

    with lock.only(out), threads(chosen.threads):
        from_models(
            out, image=image, boxes=boxes, settings=chosen, foundation=foundation, normal=normal, cell=cell,
            detector=detector, device=device,
        )  # fmt: skip
    print(f"{out}/figure7.png")


def figure8(
    source: Annotated[Path, typer.Argument(callback=there, help="Real normal images: COCO data set or folder.")],
    out: Out,
    count: Annotated[int, typer.Option(min=1, max=16, help="Number of images of each kind.")] = 3,
    label: Label = None,
    seed: Seed = 0,
    scale: Scale = 1.0,
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Figure 8: pure synthetic and real-to-synthetic images, with the boxes of their synthetic cells."""
    chosen = _settings(seed, scale, settings)
    from ..experiments.figure8 import figure8 as make

    with lock.only(out):
        path = make(
            source, out, count=count, settings=chosen, foundation=foundation, normal=normal, cell=cell,
            detector=detector, label=label, device=device,
        )  # fmt: skip
    print(path)


def _settings(seed: int, scale: float, changes: list[str] | None) -> PipelineSettings:
    settings = override(PipelineSettings(seed=seed, scale=scale), changes or [])
    check(settings)
    return settings


def _box(text: str) -> Box:
    try:
        x0, y0, x1, y1 = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--box {text}: expected X0,Y0,X1,Y1 in pixels") from None
    return x0, y0, x1, y1
