"""`cytosynth slide`: noise → latents → pixels → cells → pyramid, each continued where a killed run stopped."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from ..annotations import DataSet
from ..config import pin
from ..data import image_files
from ..data.preview import save_png
from ..data.slides import glass as empty_glass
from ..io import atomic, lock
from ..io.progress import console, meter
from ..normal.generate import NormalImageGenerator
from ..synthesis import plan as plans
from ..synthesis.pipeline import Pipeline
from .decode import Decoding
from .denoise import Denoising
from .mapped import MappedArray
from .output import Output, publish
from .pooled import pooled
from .preparation import Preparation, read_map
from .settings import DISC, FULL, SlideSettings
from .stage2 import edited
from .windows import Plane, kept, share
from .work import Work

SETTINGS = "settings.yaml"
CARD = "README.md"
"""Written last: a slide with it is finished."""
STEPS, ROWS = "steps", "rows"
PLACES, PLACE, COVERED = 8, 64, 0.6
"""Places whose statistics normalise the decoder: how many, their side in latents, and how much cells cover of each."""
STREAM = 7
"""Of those places."""


class Pinned(BaseModel):
    """What may not change between two calls of a run."""

    settings: SlideSettings
    models: dict[str, str]
    density_map: str = ""
    plan: str = ""
    original: str = ""


@dataclass(frozen=True)
class Source:
    """The unedited slide: its size, and what brings its pixels to the disk.

    Attributes:
        width: pixels.
        height: pixels.
        fill: writes the pixels, or goes on with it.
        origin: 'synthetic', or 'real-to-synthetic'.
        original: name and SHA-256 of the user's slide; "" where there is none.
    """

    width: int
    height: int
    fill: Callable[[Work, MappedArray], None]
    origin: str
    original: tuple[str, str] = ("", "")


def make(
    out: Path,
    source: Source,
    settings: SlideSettings,
    pipeline: Pipeline | None,
    models: dict[str, str],
    plan: tuple[plans.Plan, Path] | None = None,
) -> DataSet:
    """Make the slide `out` from `source`, or go on with what is missing; return it with its cells.

    Args:
        out: folder; gets the pyramid, annotations (COCO, GeoJSON), provenance, preview and card.
        source: of the normal field.
        settings: of the slide.
        pipeline: the models of stage 2; None where no cell is edited.
        models: name and weights' hash of each model by role.
        plan: which cells become what, by hand, and the file that says so.

    Raises UsageError when `out` was begun with other settings or models.
    """
    custom = settings.density_map not in (FULL, DISC)
    pinned = Pinned(
        settings=settings, models=models, plan=plan[0].digest if plan else "", original=source.original[1],
        density_map=atomic.sha256(Path(settings.density_map)) if custom else "",
    )  # fmt: skip
    with lock.run(out, SETTINGS):
        pin(pinned, out / SETTINGS)
        made = pipeline.editor.categories if pipeline else ()
        output = Output(out, settings, source.width, source.height, source.origin, models, source.original, made)
        if (out / CARD).exists():
            console.print(f"{out}: finished already", soft_wrap=True)
            return output.read()
        work = Work.of(out)
        pixels = MappedArray(work.folder / "pixels.u8", (source.height, source.width, 3), np.uint8)
        source.fill(work, pixels)
        records = [] if pipeline is None else edited(out, work, pixels, settings, pipeline, plan)
        data = publish(output, work, pixels, records)
        work.remove()
        return data


def generated(generator: NormalImageGenerator, settings: SlideSettings) -> Source:
    """Return a slide drawn by `generator`."""
    return Source(
        settings.width, settings.height, lambda work, pixels: _draw(generator, settings, work, pixels), "synthetic"
    )


def _draw(generator: NormalImageGenerator, settings: SlideSettings, work: Work, pixels: MappedArray) -> None:
    """Denoise and decode a slide into `pixels`."""
    model, both = generator.model, settings.pipeline
    factor = 2 ** (len(model.vae.config.block_out_channels) - 1)
    window = both.normal.size // factor
    side, margin = kept(settings.windows, window)
    plane = Plane.around(-(-settings.width // factor), -(-settings.height // factor), side)
    shape = read_map(settings.density_map)
    preparation = Preparation(both.seed, settings.width, settings.height, shape)
    colour, latent = _glass(generator, settings, work, factor)
    denoising = Denoising(
        model, generator.prompt, both.normal, plane, margin, settings.windows, both.seed, preparation, latent, factor,
        work.folder,
    )  # fmt: skip
    steps = both.normal.steps
    done = work.done(STEPS)
    a_step = plane.width * plane.height // side**2 * share(settings.windows)
    if done < steps:
        console.print(
            f"{settings.width}x{settings.height}: {plane.width}x{plane.height} latents of {len(latent)} channels, "
            f"{2 * 4 * len(latent) * plane.width * plane.height / 1e6:,.0f} MB while they are made; {a_step} windows a "
            f"step, {steps} steps", soft_wrap=True,
        )  # fmt: skip
        with meter("denoising", a_step * steps, a_step * done) as bar:
            denoising.run(done, lambda step: work.finished(STEPS, step), bar)
    latents = denoising.latents(steps)
    places = spread(latents, preparation, settings, factor)
    decoding = Decoding(pooled(model, places), latents, pixels, preparation, colour, factor)
    rows = work.done(ROWS)
    with meter("decoding", decoding.rows * decoding.columns, rows * decoding.columns) as bar:
        decoding.run(rows, lambda row: work.finished(ROWS, row), bar)


def spread(latents: MappedArray, preparation: Preparation, settings: SlideSettings, factor: int) -> torch.Tensor:
    """Return the (PLACES, C, h, w) latents of places all over the slide, those where cells lie."""
    side = min(PLACE, settings.width // factor, settings.height // factor)
    rng = np.random.default_rng([settings.pipeline.seed, STREAM])
    corners = rng.integers((settings.width // factor - side + 1, settings.height // factor - side + 1), size=(64, 2))
    cover = [float(preparation.cover(x, y, side, side, factor).mean()) for x, y in corners.tolist()]
    best = sorted(range(len(cover)), key=lambda index: (cover[index] < COVERED, index))[:PLACES]
    found = [torch.from_numpy(latents.array[:, y : y + side, x : x + side].copy()) for x, y in corners[best].tolist()]
    latents.release()
    return torch.stack(found)


@torch.no_grad()
def _glass(
    generator: NormalImageGenerator, settings: SlideSettings, work: Work, factor: int
) -> tuple[NDArray[np.int16], torch.Tensor]:
    """Return the colour (3,) of empty glass in fields of `generator`, and what it is as latents (C, 1, 1).

    The brightest that one field has; kept, as drawing the field takes a while.
    """
    path = work.folder / "glass.png"
    if not path.exists():
        field = generator.field(settings.pipeline.seed, 0, settings.pipeline.normal)
        far = np.abs(field.astype(np.int16) - empty_glass.glass_colour(field)).max(axis=2)
        colour = np.median(field[far <= empty_glass.CONTRAST], axis=0).astype(np.uint8)
        save_png(colour[None, None], path)
    colour = image_files.read(path)[0, 0]
    side = 32 * factor
    flat = np.broadcast_to(colour, (1, side, side, 3))
    latents = generator.model.encode_pixels(flat).float().cpu()[0, :, 12:20, 12:20]
    return colour.astype(np.int16), latents.mean(dim=(1, 2), keepdim=True)
