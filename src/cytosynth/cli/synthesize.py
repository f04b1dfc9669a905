"""`cytosynth synthesize` and `cytosynth edit`."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from ..config import override, read
from ..data.shard import Shard
from ..data.streaming import pack
from ..errors import UsageError
from ..foundation.names import PredictionType
from ..registry import SAMPLERS
from ..synthesis.settings import PipelineSettings, check
from ..variation.centre import Centre
from . import app, finish, there
from .options import (
    DataRoot,
    Device,
    Foundation,
    Label,
    Model,
    Mpp,
    Normal,
    Out,
    PackOption,
    RayOption,
    Sampler,
    Seed,
    Settings,
    ShardOption,
    Strict,
)
from .places import Annotations, ImageFolder, Key, Pseudonymise, Recursive, pseudonyms

if TYPE_CHECKING:
    from ..synthesis.synthesize import Load

PREDICTIONS = get_args(PredictionType)
Plan = Annotated[Path | None, typer.Option(help="plan.json: which cell of which image becomes what, by hand.")]
Counts = Annotated[
    str | None,
    typer.Option(metavar="HSIL=40,...", help="Cells of each category in the whole run, instead of category_weights."),
]
GateFolder = Annotated[
    str,
    typer.Option("--gate", help="What keeps or rejects cells: 'nucleus', 'bundled', a classifier's folder, 'none'."),
]
Tries = Annotated[
    int | None, typer.Option(min=1, max=100, help="Edits of a cell until the gate keeps one. \\[default: 3]")
]
Vary = Annotated[
    Path | None,
    typer.Option(metavar="SPEC.yaml", help="Draw each image's stain, optics and artefacts from this distribution."),
]
StyleFrom = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER|SLIDE", help="Stain, focus and noise of these 5 to 50 unlabelled fields of a centre."),
]
StyleMpp = Annotated[
    float | None,
    typer.Option(min=0.06, max=5, help="Micrometres a pixel of those fields: images take their scale too."),
]
Predicts = Annotated[
    str | None,
    typer.Option(
        "--prediction-type",
        help=f"Of the foundation's U-Net: {' or '.join(PREDICTIONS)}. \\[default: what its files say]",
    ),
]


@app.command()
def synthesize(
    out: Out,
    count: Annotated[int | None, typer.Option(min=1, help="Images in all. \\[default: 10]")] = None,
    start: Annotated[int | None, typer.Option(min=0, help="Number of the first image. \\[default: 0]")] = None,
    seed: Seed = None,
    plan: Plan = None,
    counts: Counts = None,
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    gate: GateFolder = "none",
    tries: Tries = None,
    data_root: DataRoot = Path(),
    sampler: Sampler = None,
    prediction_type: Predicts = None,
    device: Device = "auto",
    vary: Vary = None,
    style_from: StyleFrom = None,
    style_mpp: StyleMpp = None,
    shard: ShardOption = None,
    ray: RayOption = None,
    to: PackOption = None,
    settings: Settings = None,
) -> None:
    """Make an annotated data set: normal fields, some of whose cells are edited into abnormal ones."""
    _excluded(plan, {"--count": count, "--start": start, "--seed": seed, "--counts": counts})
    given: dict[str, object] = {"seed": seed, "prediction_type": prediction_type}
    given |= sampler_of(sampler, "normal", "cell")
    chosen = pipeline_settings(plan, given, counts, tries, settings, cell)
    chosen = _shown(chosen, vary, style_from, style_mpp)
    from ..synthesis import synthesize as pipeline

    with _loading(ray) as load:
        data = pipeline.synthesize(
            out, count=0 if plan else count or 10, start=start or 0, plan=plan, settings=chosen, foundation=foundation,
            normal=normal, cell=cell, detector=detector, gate=gate, data_root=data_root, device=device,
            shard=Shard.parse(shard) if shard else None, load=load,
        )  # fmt: skip
    pack(out, to)
    finish(data, out, "README.md")


@app.command()
def edit(
    images: Annotated[Path, typer.Argument(callback=there, help="A folder of normal images, a data set, or a slide.")],
    out: Out,
    seed: Seed = None,
    plan: Plan = None,
    counts: Counts = None,
    foundation: Foundation = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    gate: GateFolder = "none",
    tries: Tries = None,
    data_root: DataRoot = Path(),
    sampler: Sampler = None,
    prediction_type: Predicts = None,
    device: Device = "auto",
    scale: Annotated[
        float | None, typer.Option(min=0.01, max=8, help="Factor that brings the images to x20. \\[default: 1]")
    ] = None,
    mpp: Mpp = None,
    label: Label = None,
    split: Annotated[str, typer.Option(help="Of a data set, take the images of this part of its split.")] = "all",
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first N images.")] = None,
    strict: Strict = False,
    vary: Vary = None,
    style_from: StyleFrom = None,
    style_mpp: StyleMpp = None,
    annotations: Annotations = None,
    image_folder: ImageFolder = None,
    recursive: Recursive = False,
    pseudonymise: Pseudonymise = False,
    key: Key = None,
    shard: ShardOption = None,
    ray: RayOption = None,
    to: PackOption = None,
    settings: Settings = None,
) -> None:
    """Real-to-synthetic: edit cells of your own normal images into abnormal ones (stage 2 alone)."""
    part = None if split == "all" else split
    _excluded(plan, {"--seed": seed, "--counts": counts, "--limit": limit, "--label": label, "--split": part})
    given: dict[str, object] = {"seed": seed, "scale": scale, "prediction_type": prediction_type}
    given |= sampler_of(sampler, "cell")
    chosen = pipeline_settings(plan, given, counts, tries, settings, cell)
    chosen = _shown(chosen, vary, style_from, style_mpp)
    from ..data.slides import reader

    names = pseudonyms(pseudonymise, key)
    if reader.is_slide(images):
        if chosen.vary or chosen.style:
            raise UsageError(f"{images}: a slide; --vary and --style-from are for images")
        if shard or ray or to:
            raise UsageError(f"{images}: --shard, --ray and --to are for images, not for a slide")
        from ..slides import commands

        data = commands.edit_slide(
            images, out, chosen, mpp=mpp, plan=plan, foundation=foundation, cell=cell, detector=detector, gate=gate,
            data_root=data_root, device=device, pseudonyms=names,
        )  # fmt: skip
        finish(data, out, "README.md")
        return
    from ..data.read import Place
    from ..synthesis import synthesize as pipeline

    with _loading(ray) as load:
        data = pipeline.edit(
            images, out, plan=plan, settings=chosen, foundation=foundation, cell=cell, detector=detector, gate=gate,
            data_root=data_root, device=device, label=label, part=split, limit=limit, strict=strict,
            place=Place(annotations, image_folder, recursive), pseudonyms=names,
            shard=Shard.parse(shard) if shard else None, load=load,
        )  # fmt: skip
    pack(out, to)
    finish(data, out, "README.md")


def _loading(ray: str | None) -> "AbstractContextManager[Load]":
    """Return the context of what loads models: into this process, or into the workers of the cluster at `ray`."""
    if ray is None:
        from ..synthesis import models

        return nullcontext(models.load)
    from ..scale import ray_engine

    return ray_engine.loading_at(ray)


def _excluded(plan: Path | None, options: dict[str, object]) -> None:
    """Raise UsageError for an option about what a plan says already."""
    for name, value in options.items():
        if plan and value is not None:
            raise UsageError(f"{name} {value}: the plan says which images, cells and seeds; give one or the other")


def sampler_of(name: str | None, *stages: str) -> dict[str, object]:
    """Return the setting of each of `stages`; raise UsageError where there is no sampler `name`."""
    if name is not None and name not in SAMPLERS:
        raise UsageError(f"--sampler {name}: no such sampler; there are {', '.join(SAMPLERS)}")
    return {f"{stage}.sampler": name for stage in stages}


def pipeline_settings(
    plan: Path | None,
    given: dict[str, object],
    counts: str | None,
    tries: int | None,
    changes: list[str] | None,
    cell: str,
) -> PipelineSettings:
    """Return the settings of a run: those of the plan or the defaults, then the options, then `--set`."""
    from ..cell.editing import categories
    from ..synthesis import plan as plans

    known = categories(cell)
    base = plans.read(plan, known).base() if plan else PipelineSettings()
    options = [f"{key}={value}" for key, value in given.items() if value is not None]
    options += [f"gate.tries={tries}"] if tries is not None else []
    if counts is not None:
        base = base.model_copy(update={"counts": _counts(counts)})
    settings = override(base, [*options, *(changes or [])])
    check(settings, categories=known)
    return settings


def _shown(
    settings: PipelineSettings, vary: Path | None, style_from: Path | None, style_mpp: float | None
) -> PipelineSettings:
    """Return `settings` with the centre that the images are to look as if they were of."""
    if style_mpp is not None and style_from is None:
        raise UsageError(f"--style-mpp {style_mpp:g}: is of the fields of --style-from, which is missing")
    update: dict[str, object] = {}
    if vary is not None:
        update["vary"] = read(Centre, vary)
    if style_from is not None:
        from ..synthesis.centre import style_of

        update["style"] = style_of(there(style_from), style_mpp)
    return settings.model_copy(update=update)


def _counts(text: str) -> dict[str, int]:
    """Return the numbers of `HSIL=40,ASC-H=30`."""
    asked: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        if not number.strip().isdecimal() or len(number) > 9 or name.strip() in asked:
            raise UsageError(f"--counts {text}: expected CATEGORY=NUMBER,..., each category once")
        asked[name.strip()] = int(number)
    return asked
