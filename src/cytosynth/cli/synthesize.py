"""`cytosynth synthesize` and `cytosynth edit`."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..data.shard import Shard
from ..data.streaming import pack
from ..errors import UsageError
from ..io.bundled import of_preparation
from ..synthesis import fast as fasts
from . import app, finish, there
from .data_options import Annotations, ImageFolder, Key, Pseudonymise, Recursive, pseudonyms
from .options import (
    Compile,
    DataRoot,
    Decoder,
    Device,
    Engine,
    FastCell,
    FastNormal,
    FastOption,
    Foundation,
    KeepAbnormal,
    Label,
    Model,
    Mpp,
    Normal,
    Out,
    PackOption,
    Precision,
    Preparation,
    RayOption,
    Sampler,
    Seed,
    Settings,
    ShardOption,
    Strict,
    without_effect,
)
from .pipeline_options import (
    UNGATED,
    Counts,
    GateFolder,
    Plan,
    Predicts,
    StyleFrom,
    StyleMpp,
    Tries,
    Vary,
    excluded,
    pipeline_settings,
    sampler_of,
    shown,
)

if TYPE_CHECKING:
    from ..synthesis.synthesize import Load


@app.command()
def synthesize(
    out: Out,
    count: Annotated[int | None, typer.Option(min=1, help="Total number of images. \\[default: 10]")] = None,
    start: Annotated[int | None, typer.Option(min=0, help="Index of the first image. \\[default: 0]")] = None,
    seed: Seed = None,
    plan: Plan = None,
    counts: Counts = None,
    preparation: Preparation = "conventional",
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    gate: GateFolder = "none",
    tries: Tries = None,
    data_root: DataRoot = Path(),
    sampler: Sampler = None,
    fast: FastOption = False,
    fast_normal: FastNormal = None,
    fast_cell: FastCell = None,
    prediction_type: Predicts = None,
    precision: Precision = None,
    compiled: Compile = None,
    engine: Engine = None,
    decoder: Decoder = None,
    device: Device = "auto",
    vary: Vary = None,
    style_from: StyleFrom = None,
    style_mpp: StyleMpp = None,
    shard: ShardOption = None,
    ray: RayOption = None,
    to: PackOption = None,
    settings: Settings = None,
) -> None:
    """Make an annotated data set: generate normal fields and edit some of their cells into abnormal ones."""
    excluded(plan, {"--count": count, "--start": start, "--seed": seed, "--counts": counts})
    without_effect(UNGATED, {"--tries": tries if gate == "none" else None})
    models = {"foundation": foundation, "normal": normal, "cell": cell}
    few = fasts.asked(fast, {"normal": fast_normal, "cell": fast_cell}, models)
    given: dict[str, object] = {"seed": seed, "prediction_type": prediction_type, "precision": precision}
    given |= {"compiled": compiled, "engine": engine} | sampler_of(sampler, "normal", "cell")
    chosen = pipeline_settings(plan, given, counts, tries, settings, cell, few)
    chosen = shown(chosen, vary, style_from, style_mpp)
    from ..synthesis import synthesize as pipeline

    with _loading(ray) as load:
        data = pipeline.synthesize(
            out, count=0 if plan else count or 10, start=start or 0, plan=plan, settings=chosen, foundation=foundation,
            normal=of_preparation(preparation, normal), cell=cell, detector=detector, gate=gate, data_root=data_root,
            decoder=decoder, device=device, shard=Shard.parse(shard) if shard else None, load=load, fast=few,
        )  # fmt: skip
    pack(out, to)
    finish(data, out, "README.md")


@app.command()
def edit(
    images: Annotated[Path, typer.Argument(callback=there, help="Folder of normal images, data set, or slide.")],
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
    fast: FastOption = False,
    fast_cell: FastCell = None,
    prediction_type: Predicts = None,
    precision: Precision = None,
    compiled: Compile = None,
    engine: Engine = None,
    decoder: Decoder = None,
    device: Device = "auto",
    scale: Annotated[
        float | None,
        typer.Option(min=0.01, max=8, help="Resize images by this factor, to bring them to x20. \\[default: 1]"),
    ] = None,
    mpp: Mpp = None,
    label: Label = None,
    split: Annotated[str, typer.Option(help="Part of the data set to use: train, val, test or all.")] = "all",
    keep_abnormal: KeepAbnormal = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N images.")] = None,
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
    without_effect(UNGATED, {"--tries": tries if gate == "none" else None})
    excluded(plan, {"--seed": seed, "--counts": counts, "--limit": limit, "--label": label, "--split": part})
    few = fasts.asked(fast, {"cell": fast_cell}, {"foundation": foundation, "cell": cell})
    given: dict[str, object] = {"seed": seed, "scale": scale, "prediction_type": prediction_type}
    given |= {"precision": precision, "compiled": compiled, "engine": engine, "keep_abnormal": keep_abnormal or None}
    given |= sampler_of(sampler, "cell")
    chosen = pipeline_settings(plan, given, counts, tries, settings, cell, few)
    chosen = shown(chosen, vary, style_from, style_mpp)
    from ..data.slides import reader

    names = pseudonyms(pseudonymise, key)
    if reader.is_slide(images):
        if chosen.vary or chosen.style:
            raise UsageError(f"{images}: --vary and --style-from work on images, not on a slide")
        if shard or ray or to:
            raise UsageError(f"{images}: --shard, --ray and --to work on images, not on a slide")
        without_effect(
            f"{images}: is a slide, brought to x20 whole",
            {"--label": label, "--split": part, "--limit": limit, "--scale": scale, "--annotations": annotations,
             "--images": image_folder, "--recursive": recursive or None,
             "--keep-abnormal": chosen.keep_abnormal or None},
        )  # fmt: skip
        from ..slides import commands

        data = commands.edit_slide(
            images, out, chosen, mpp=mpp, plan=plan, foundation=foundation, cell=cell, detector=detector, gate=gate,
            data_root=data_root, decoder=decoder, device=device, pseudonyms=names, fast=few,
        )  # fmt: skip
        finish(data, out, "README.md")
        return
    without_effect(f"{images}: no slide; images are brought to x20 by --scale", {"--mpp": mpp})
    from ..data.read import Place
    from ..synthesis import synthesize as pipeline

    with _loading(ray) as load:
        data = pipeline.edit(
            images, out, plan=plan, settings=chosen, foundation=foundation, cell=cell, detector=detector, gate=gate,
            data_root=data_root, decoder=decoder, device=device, label=label, part=split, limit=limit, strict=strict,
            place=Place(annotations, image_folder, recursive), pseudonyms=names,
            shard=Shard.parse(shard) if shard else None, load=load, fast=few,
        )  # fmt: skip
    pack(out, to)
    finish(data, out, "README.md")


def _loading(ray: str | None) -> "AbstractContextManager[Load]":
    """Return the context in which models are loaded: into this process, or into the workers of the cluster at `ray`."""
    if ray is None:
        from ..synthesis import models

        return nullcontext(models.load)
    from ..scale import ray_engine

    return ray_engine.loading_at(ray)
