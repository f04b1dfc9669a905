"""`slide`, and `edit` on a slide: load the models by name and make the slide."""

from pathlib import Path

from ..annotations import DataSet
from ..cell.editing import targets
from ..data.pseudonyms import Pseudonyms
from ..data.slides import reader
from ..data.slides.slide import View
from ..devices import threads
from ..errors import UsageError
from ..foundation import load as foundations
from ..foundation import tiny_decoder
from ..foundation.names import BUNDLED
from ..foundation.precision import prepare, resolved
from ..io import atomic
from ..io.progress import meter
from ..normal.generate import NormalImageGenerator
from ..provenance import short
from ..synthesis import plan as plans
from ..synthesis.computing import decided
from ..synthesis.fast import NOT, Fast
from ..synthesis.fitting import followed
from ..synthesis.models import NONE, Models, load
from ..synthesis.settings import PipelineSettings, check
from .make import ROWS, Source, generated, make, written
from .mapped import MappedArray
from .settings import SlideSettings
from .stage2 import check_counts
from .work import Work

BAND = 512
"""Rows of a user's slide that are brought to x20 at a time."""


def slide(
    out: Path,
    settings: SlideSettings,
    *,
    plan: Path | None = None,
    foundation: str = BUNDLED,
    normal: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    gate: str = NONE,
    data_root: Path = Path(),
    decoder: str | None = None,
    device: str = "cpu",
    max_minutes: float | None = None,
    fast: Fast = NOT,
) -> DataSet:
    """Generate a slide in `out`, and edit cells of it if counts or a `plan` are given; see the command `slide`.

    Raises Paused when `max_minutes` are over.
    """
    known = targets(cell)
    settings.check()
    check(settings.pipeline, categories=known)
    check_counts(settings, plan)
    given = followed(plan, settings.pipeline, cell, known)
    if given:
        settings = _as_planned(settings, *given)
    both = decided(settings.pipeline, written(out), device)
    with threads(both.threads):
        if not (plan or both.counts):
            base = foundations.load(foundation, denoiser="plain", prediction_type=both.prediction_type)
            models = {"decoder": f"{short(decoder)} {tiny_decoder.attach(base, decoder)}"} if decoder else {}
            adapter = None if normal == NONE else normal
            generator = NormalImageGenerator(base, adapter, device, distilled=fast.normal)
            generator.low_frequencies = None  # they are of fields; a slide has no such pattern
            prepare(generator.model, resolved(both.precision, device), both.compiled, both.engine)
            models["normal"] = f"{_said(normal)} {generator.digest}"
            if fast.normal:
                models["fast_normal"] = f"{_said(fast.normal)} {generator.distilled}"
            scale = generator.settled(both.normal).guidance_scale
            both = both.model_copy(update={"normal": both.normal.model_copy(update={"guidance_scale": scale})})
            settings = settings.model_copy(update={"pipeline": both})
            return make(out, generated(generator, settings), settings, None, models, max_minutes=max_minutes)
        found = None if plan else detector
        pipeline = load(Models(foundation, cell, gate, found, normal, True, both, data_root, device, decoder, fast))
        assert pipeline.generator is not None
        pipeline.generator.low_frequencies = None
        settings = settings.model_copy(update={"pipeline": pipeline.settle(both)})
        source = generated(pipeline.generator, settings)
        return make(out, source, settings, pipeline, pipeline.models(), given, max_minutes)


def edit_slide(
    path: Path,
    out: Path,
    settings: PipelineSettings,
    *,
    mpp: float | None = None,
    plan: Path | None = None,
    foundation: str = BUNDLED,
    cell: str = BUNDLED,
    detector: str = BUNDLED,
    gate: str = NONE,
    data_root: Path = Path(),
    decoder: str | None = None,
    device: str = "cpu",
    pseudonyms: Pseudonyms | None = None,
    fast: Fast = NOT,
) -> DataSet:
    """Edit cells of the user's slide at `path`, brought to x20, into the slide `out`; see the command `edit`.

    Raises UsageError if neither counts nor a `plan` are given.
    """
    known = targets(cell)
    check(settings, categories=known)
    given = followed(plan, settings, cell, known)
    if given and any(image.left_out for image in given[0].images):
        raise plans.PlanProblem(f"{plan}: left_out: no effect on a slide, which has no annotated cells; remove it")
    if not (plan or settings.counts):
        raise UsageError(f"{path}: a slide needs --counts (HSIL=40,...), or --plan")
    settings = decided(settings, written(out), device)
    with reader.opened(path, mpp) as opened, threads(settings.threads):
        view = opened.at()
        width, height = view.size
        found = None if plan else detector
        pipeline = load(Models(foundation, cell, gate, found, NONE, False, settings, data_root, device, decoder, fast))
        slide_settings = SlideSettings(width=width, height=height, pipeline=pipeline.settle(settings))
        check_counts(slide_settings, plan)
        name = pseudonyms.name(path.name) if pseudonyms else path.name
        original = (name, atomic.sha256(path))
        source = Source(width, height, lambda work, pixels: _copy(view, work, pixels), "real-to-synthetic", original)
        return make(out, source, slide_settings, pipeline, pipeline.models(), given)


def _said(name: str) -> str:
    """Return what records call the model `name`."""
    return name if name == BUNDLED else short(name)


def _as_planned(settings: SlideSettings, plan: plans.Plan, path: Path) -> SlideSettings:
    """Return `settings` with the seed of the slide for which the `plan` at `path` was made."""
    field = plan.images[0].generated
    if field is None:
        raise plans.PlanProblem(f"{path}: a plan for an existing slide; use it with `edit`")
    return settings.model_copy(update={"pipeline": settings.pipeline.model_copy(update={"seed": field.seed})})


def _copy(view: View, work: Work, pixels: MappedArray) -> None:
    """Bring the pixels of `view` to the disk, a band of rows at a time."""
    width, height = view.size
    bands = -(-height // BAND)
    done = work.done(ROWS)
    with meter("reading", bands, done) as bar:
        for number in range(done, bands):
            top = number * BAND
            rows = min(BAND, height - top)
            for left in range(0, width, BAND):
                columns = min(BAND, width - left)
                pixels.array[top : top + rows, left : left + columns] = view.read(left, top, columns, rows)
            pixels.release()
            work.finished(ROWS, number + 1)
            bar.advance()
