"""`cytosynth evaluate reconstruction|detection|cells`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..adapters.distilled import Stage
from ..errors import UsageError
from ..io import wording
from ..synthesis import fast as fasts
from . import all_there, app, there
from .options import DataRoot, Device, FastCell, FastNormal, FastOption, Scale, renamed

evaluate_app = typer.Typer(help="Measure a model on held-out data.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")

Data = Annotated[Path, typer.Argument(callback=there, help="COCO data set.")]
Split = Annotated[str, typer.Option(help="Part of the data set: train, val, test or all.")]
Detector = Annotated[
    str,
    typer.Option(
        help="Folder of a detector, 'bundled', 'results:FILE' (COCO), or 'command:PROGRAM {images} {results}'."
    ),
]


@evaluate_app.command()
def reconstruction(
    data: Data,
    foundation: Annotated[
        list[str] | None, typer.Option(help="Foundation whose autoencoder is measured; may be repeated.")
    ] = None,
    autoencoder: Annotated[
        list[Path] | None,
        typer.Option(callback=all_there, help="Folder of an autoencoder, or of its training run; may be repeated."),
    ] = None,
    split: Split = "test",
    scale: Scale = 1.0,
    zoom: Annotated[
        list[float] | None,
        typer.Option(min=1, max=4, help="Enlarge images by this factor first, as stage 2 may; may be repeated."),
    ] = None,
    timed: Annotated[bool, typer.Option("--time", help="Also time the decoding of 1024x1024 pixels.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for the table and contact sheets.")] = None,
    device: Device = "auto",
    sheet: Annotated[str | None, renamed("--sheet", "--output")] = None,
) -> None:
    """Measure what autoencoders preserve of images: PSNR, gradient, power by octave, fine detail, kernel distance."""
    from diffusers import AutoencoderKL

    from ..data import sources
    from ..data.sources import Source
    from ..devices import available
    from ..evaluate.reconstruction import evaluate
    from ..foundation.load import load, part
    from ..io.bundled import model_folder

    place = available(device)
    named = foundation or ([] if autoencoder else ["bundled"])
    found = {Path(name).name: load(name, denoiser="unused").freeze().vae.to(place) for name in named}
    for path in autoencoder or []:
        name = path.name if path.name not in found else f"{path.parent.name}-{path.name}"
        trained = part(AutoencoderKL, model_folder(str(path), "autoencoder"))
        found[name] = trained.eval().requires_grad_(False).to(place)
    samples = sources.load([Source(root=data.name, scale=scale, split=split)], data.parent)
    facts = {"data": data.name, "part": split, "scale": scale}
    report = evaluate(found, samples, facts, timed=timed, sheets=output, zooms=zoom or [1.0], device=device)
    report.show()
    if output:
        report.write(output, "autoencoder")
        print(f"{output}/autoencoder.md")


@evaluate_app.command()
def detection(
    data: Data,
    detector: Detector = "bundled",
    split: Split = "test",
    scale: Scale = 1.0,
    draws: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples of images for the 95 % intervals; 0: no intervals.")
    ] = 200,
    most: Annotated[
        int, typer.Option(min=1, help="Maximum detections per image, best first (pycocotools' default is 100).")
    ] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the scores to this JSON file.")] = None,
    device: Device = "auto",
) -> None:
    """Measure a detector's COCO average precision: mAP, mAP.5, mAP.75, and AP of each category (Section IV-C).

    A category without a cell in the data has no AP (null). As in pycocotools, crowds (iscrowd) count neither as missed
    nor as false positives. At an equal --most the figures equal those of pycocotools.
    """
    from dataclasses import asdict

    from ..data import sources
    from ..data.formats import coco
    from ..data.sources import Source
    from ..detection import external
    from ..errors import UserError
    from ..evaluate.detection.average_precision import evaluate
    from ..evaluate.detection.scoring import LEAST
    from ..io.atomic import write_json

    samples = sources.load([Source(root=data.name, scale=scale, split=split)], data.parent)
    there = {cell.category for sample in samples for cell in sample.cells}
    truth = data / coco.FILE if data.is_dir() else data
    finder = external.load(detector, coco.read(data).categories, device, truth, scale)
    if there.isdisjoint(finder.categories):
        raise UserError(
            f"{data}: no cell of the detector's categories ({', '.join(finder.categories)}); annotated are "
            f"{wording.listed(there)}"
        )
    found = finder.find_all(((sample.name, sample.pixels) for sample in samples), len(samples), LEAST, "clean")
    values = asdict(evaluate([sample.cells for sample in samples], found, finder.categories, most, draws))
    said = {"images": len(samples), "detector": finder.digest, "split": split, "scale": scale, "most": most}
    scores = said | {key: _short(value) for key, value in values.items()}
    if output:
        write_json(output, scores)
    print(json.dumps(scores) if as_json else _table(scores))
    if output and not as_json:
        print(output)


@evaluate_app.command()
def cells(
    real: Annotated[
        Path, typer.Argument(callback=there, help="COCO data set of held-out real cells, normal and abnormal.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for patches and tables; the same command continues it.")],
    split: Split = "test",
    scale: Scale = 1.0,
    foundation: Annotated[str, typer.Option(help="Foundation of the synthesizer.")] = "bundled",
    cell: Annotated[
        str, typer.Option(help="Folder of a synthesizer or of its training run, or 'bundled'.")
    ] = "bundled",
    classifier: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a cell classifier, or of its training run, that had no part in training or gating."
        ),
    ] = None,
    extractor: Annotated[list[str] | None, typer.Option("--features", help="Feature network; may be repeated.")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Weights of a feature network: a file or folder; may be repeated."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of NILM cells to edit, each into every category.")] = 100,
    fields: Annotated[int, typer.Option(min=0, help="Edit cells of N generated fields instead.")] = 0,
    normal: Annotated[str, typer.Option(help="With --fields: adapter of stage 1, or 'none'.")] = "bundled",
    detector: Annotated[str, typer.Option(help="With --fields: detector of NILM cells.")] = "bundled",
    fast: FastOption = False,
    fast_normal: FastNormal = None,
    fast_cell: FastCell = None,
    categories: Annotated[str, typer.Option(help="Categories to edit into.")] = "ASC-US,ASC-H,LSIL,HSIL",
    window: Annotated[int, typer.Option(min=32, max=256, help="Side of the compared patches, pixels.")] = 256,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Random seed (choice of cells, edits, bootstrap).")
    ] = 0,
    draws: Annotated[int, typer.Option(min=10, help="Bootstrap resamples of images for the intervals.")] = 200,
    device: Device = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example cell.steps=50."),
    ] = None,
    judge: Annotated[str | None, renamed("--judge", "--classifier")] = None,
) -> None:
    """Measure whether edited cells resemble real ones of their category: distances, classification, nucleus, N/C ratio.

    Every figure is given with that of the same cells before the edit and with that of other real cells.
    """
    from ..config import assignments, override, validated
    from ..data.sources import Source
    from ..evaluate.cells.recipe import Editing, Measuring

    named = {"foundation": foundation, "cell": cell, "normal": normal}
    if fast_normal and not fields:
        raise UsageError("--fast-normal: no effect on the cells of real images; give --fields too, or leave it out")
    stages: dict[Stage, str | None] = {"cell": fast_cell}
    if fields:
        stages["normal"] = fast_normal
    few = fasts.asked(fast, stages, named)
    editing = Editing(real=Source(root=real.name, scale=scale, split=split), seed=seed)
    editing = override(editing, [*assignments(few.settings()), *(settings or [])])
    asked = {"categories": categories.split(","), "count": count, "fields": fields, "window": window, "draws": draws}
    how = validated(Measuring, asked, "evaluate cells")
    from ..evaluate.cells.evaluate import evaluate_cells
    from ..evaluate.cells.load import load

    models = load(
        named | {"detector": detector}, classifier, extractor or ["efficientnet-lite0"], weights or [],
        drawn=fields > 0, device=device, precision=editing.precision, fast=few.by_stage,
    )  # fmt: skip
    for report in evaluate_cells(editing, how, models, real.parent, out):
        report.show()
    print(f"{out}/cells.md")


@evaluate_app.command()
def layout(
    synthetic: Annotated[Path, typer.Argument(callback=there, help="Synthetic data set with its boxes.")],
    real: Annotated[Path, typer.Argument(callback=there, help="Real annotated data set that the detector never saw.")],
    detector: Annotated[str, typer.Option(help="Folder of a detector of abnormal cells, trained on real images.")],
    split: Split = "test",
    scale: Scale = 1.0,
    draws: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples of images for the 95 % intervals; 0: no intervals.")
    ] = 200,
    output: Annotated[Path | None, typer.Option(help="Folder for the table.")] = None,
    device: Device = "auto",
) -> None:
    """Layout fidelity: AP.5 of a detector trained on real images, on synthetic images and on other real ones.

    --split and --scale apply to the real images; synthetic ones are used at their own scale.
    """
    from ..data import sources
    from ..data.sources import Source
    from ..detection import external
    from ..errors import UserError
    from ..evaluate.detection.layout import layout as measure

    if detector.startswith(external.RESULTS):
        raise UserError(
            f"{detector[:80]}: contains results on one set of images; give a detector that can run on both sets"
        )
    sides = {
        "synthetic": sources.load([Source(root=synthetic.name, split="all")], synthetic.resolve().parent),
        "real": sources.load([Source(root=real.name, scale=scale, split=split)], real.resolve().parent),
    }
    there = sorted({cell.category for samples in sides.values() for sample in samples for cell in sample.cells})
    finder = external.load(detector, there, device)
    facts = {"synthetic": synthetic.name, "real": f"{real.name}, part {split}", "detector": finder.digest}
    report = measure(finder, sides, draws, facts)
    report.show()
    if output:
        report.write(output, "layout")
        print(f"{output}/layout.md")


@evaluate_app.command()
def seen(
    models: Annotated[list[Path] | None, typer.Argument(callback=all_there, help="Training runs, or models.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SET:PART", help="For models without a run: a data set below --data-root, and its part."),
    ] = None,
    data_root: DataRoot = Path(),
    output: Annotated[Path | None, typer.Option(help="File to write, or folder of a model to write it into.")] = None,
) -> None:
    """List the image files that models were trained and selected on, by SHA-256, so that none is held out later.

    Put the file next to the weights of a model that you distribute without its run.
    """
    from ..augmentation import seen as room
    from ..data.sources import Source
    from ..errors import UsageError, UserError

    if not (models or data):
        raise UsageError("give training runs, or --data SET:PART")
    found = []
    for model in models or []:
        known = room.of_model(str(model), "cell", data_root)
        if known is None:
            raise UserError(f"{model}: no recipe.yaml of a run whose data sets are below {data_root}")
        found.append(known)
    for text in data or []:
        root, _, part = text.partition(":")
        found.append(room.digests(Source(root=root, split=part or "all"), data_root))
    if output:
        file = output / room.FILE if output.is_dir() else output
        print(f"{file}: {room.write(file, found)} images")
    else:
        for digest, name in sorted({pair for known in found for pair in known.items()}, key=lambda pair: pair[1]):
            print(f"{digest}  {name}")


def _table(scores: dict[str, Any]) -> str:
    """Return detection scores, as `detection` gathers them, as lines of text."""
    overall = {"mAP": "map", "mAP.5": "map_50", "mAP.75": "map_75", "recall": "recall"}
    rows = [(title, scores[key], scores["intervals"].get(key)) for title, key in overall.items()]
    rows += [(f"AP {name}", value, scores["intervals"].get(name)) for name, value in scores["per_category"].items()]
    lines = [f"{scores['images']} images of part '{scores['split']}'"]
    for title, value, interval in rows:
        span = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        lines.append(f"{title:<12} {'none annotated' if value is None else f'{value:.3f}'}{span}")
    return "\n".join(lines)


def _short(value: object) -> object:
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_short(inner) for inner in value]
    return None if value != value else round(float(value), 4)  # type: ignore[arg-type]
