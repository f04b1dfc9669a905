"""`cytosynth evaluate robustness|controlled|centres`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..io.bundled import model_folder
from . import there
from .evaluate import evaluate_app
from .options import Device, Scale, Settings

if TYPE_CHECKING:
    from ..detection.external import Finder

NAMED = re.compile(r"(?P<name>[\w .+-]{1,40})=(?P<what>.+)", re.DOTALL)
DETECTOR = "Folder of a detector, 'bundled', 'results:FOLDER' or 'command:...'; NAME=... gives it a name."
QUICK = {"strengths": [3], "limit": 20, "draws": 50}
"""What --quick sets."""
Also = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DETECTOR", help="Another detector; repeat a NAME for several trainings of one detector."
    ),
]
Data = Annotated[Path, typer.Argument(callback=there, help="COCO data set of held-out real images.")]
Out = Annotated[Path, typer.Option("--output", help="Run folder; the same command continues it.")]
Split = Annotated[str, typer.Option(help="Part of the data set: train, val, test or all.")]
Mpp = Annotated[float, typer.Option(min=0.06, max=5, help="Micrometres per pixel after scaling.")]


@evaluate_app.command()
def robustness(
    detector: Annotated[str, typer.Argument(help=DETECTOR)],
    data: Data,
    out: Out,
    also: Also = None,
    split: Split = "test",
    scale: Scale = 1.0,
    mpp: Mpp = 0.49,
    quick: Annotated[bool, typer.Option("--quick", help="Only strength 3, 20 images, 50 resamples.")] = False,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write the section 'Where this detector fails' into the model cards; of a detector without a folder, "
            "into OUT.",
        ),
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Only write the varied images to this folder, for predictions by another program."),
    ] = None,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Benchmark robustness: AP, recall and flips under every variation at five strengths, with intervals."""
    from ..config import override
    from ..data.sources import Source
    from ..robustness.recipe import RobustnessRecipe

    given = [f"{key}={value}" for key, value in QUICK.items()] if quick else []
    base = RobustnessRecipe(data=Source(root=data.name, scale=scale, split=split), mpp=mpp)
    recipe = override(base, [*given, *(settings or [])])
    if export:
        if card or also:
            raise UsageError(f"{'--card' if card else '--also'}: with --export no detector is run; leave it out")
        from ..robustness.export import export_all

        export_all(recipe, data.parent, export)
        print(f"{export}: {len(recipe.conditions())} COCO data sets, one for each condition")
        return
    from ..robustness import card as cards
    from ..robustness.benchmark import benchmark

    said = [detector, *(also or [])]
    outcome = benchmark(recipe, loaded(said, data, device), data.parent, out)
    for title, report in outcome.reports:
        if title != "conditions":
            report.show()
    folders = _folders(said)
    for name in outcome.clean if card else ():
        print(cards.fill(folders.get(name), out, name, outcome, recipe, f"{data.name}, part {split}"))
    print(f"{out}/robustness.md {out}/heat_map.png {out}/curves.png {out}/variations.png")


@evaluate_app.command()
def controlled(
    detector: Annotated[str, typer.Argument(help=DETECTOR)],
    out: Out,
    also: Also = None,
    real: Annotated[
        Path | None,
        typer.Option(
            callback=lambda path: path and there(path), help="Run folder of `evaluate robustness`, to correlate with."
        ),
    ] = None,
    data_root: Annotated[
        Path, typer.Option(callback=there, help="Folder that contains the data the detectors were trained on.")
    ] = Path(),
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Test detectors on one cell edited to each category, size and place: found after the edit, not before?

    The cells are synthetic, and the generator must have trained none of the detectors. --real adds the rank
    correlation with real images.
    """
    from ..config import override
    from ..robustness.controlled import ControlledRecipe

    recipe = override(ControlledRecipe(), settings or [])
    from ..detection import external
    from ..devices import threads
    from ..robustness import ranking
    from ..synthesis.models import for_fields

    said = [detector, *(also or [])]
    names = [name for name, _ in map(named, said)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--also: two detectors are called {twice!r}; give each a name of its own, NAME=DETECTOR")
    detectors = {name: external.load(what, recipe.categories, device) for name, what in map(named, said)}
    pipeline = for_fields(recipe.models, recipe.making, device)
    for folder in _folders(said).values():
        print(ranking.refuse_trained(folder, data_root, pipeline.models()))
    with threads(recipe.making.threads):
        reports = ranking.controlled(recipe, detectors, lambda: pipeline, out, real)
    for report in reports:
        report.show()
    print(f"{out}/controlled.md")


@evaluate_app.command()
def centres(
    detector: Annotated[str, typer.Argument(help=DETECTOR)],
    centre: Annotated[
        list[str],
        typer.Option(metavar="NAME={root: ...}", help="Data of a centre, YAML: root, scale, split, exhaustive."),
    ],
    out: Annotated[Path, typer.Option("--output", help="Folder for centres.json, .md and .csv.")],
    also: Also = None,
    data_root: Annotated[Path, typer.Option(callback=there, help="Folder that contains the data sets.")] = Path(),
    device: Device = "auto",
) -> None:
    """Measure a detector's recall on other centres; cells are matched by their centres, since boxes differ."""
    from ..config import validated
    from ..io import plain
    from ..robustness.centres import CentreData, compare

    chosen = {}
    for text in centre:
        name, _, what = text.partition("=")
        try:
            chosen[name] = validated(CentreData, plain.from_yaml(what), f"--centre {name[:40]}")
        except ValueError as error:
            raise UsageError(f"--centre {text[:80]}: {error}") from None
    from ..bethesda import CATEGORIES
    from ..detection import external

    detectors: dict[str, list[Finder]] = {}
    for name, what in map(named, [detector, *(also or [])]):
        detectors.setdefault(name, []).append(external.load(what, CATEGORIES, device))
    report = compare(chosen, detectors, data_root)
    report.write(out, "centres")
    report.show()
    print(f"{out}/centres.md")


@evaluate_app.command()
def style(
    generated: Annotated[Path, typer.Argument(callback=there, help="Folder of generated images.")],
    fields: Annotated[Path, typer.Argument(callback=there, help="Folder of the fields that give the style.")],
    reference: Annotated[
        Path,
        typer.Argument(
            callback=there,
            help="Folder of other fields of the same centre. If it is FIELDS, its images (or slides) are divided "
            "between style and comparison.",
        ),
    ],
    out: Annotated[Path, typer.Option("--output", help="Folder for style.json, .md and .csv.")],
    scale: Annotated[
        float, typer.Option(min=0.01, max=8, help="Resize the fields by this factor, to bring them to x20.")
    ] = 1.0,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Images whose names are equal up to this text belong to one slide."),
    ] = None,
    features: Annotated[str, typer.Option(help="Feature network of the distance.")] = "efficientnet-lite0",
    window: Annotated[int, typer.Option(min=32, help="Side of the compared windows, pixels.")] = 192,
    detector: Annotated[
        str | None,
        typer.Option(help="Detector that classifies the cells before and after, if GENERATED is a COCO data set."),
    ] = None,
    draws: Annotated[int, typer.Option(min=10, help="Bootstrap resamples.")] = 200,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Random seed (division of the images, bootstrap).")
    ] = 0,
    device: Device = "auto",
) -> None:
    """Measure whether a style brings images nearer to a centre: distance and linear probe, before and after."""
    from ..data import gather, image_files
    from ..evaluate.networks.features import load
    from ..robustness import style as room

    groups = []
    same = fields.resolve() == reference.resolve()
    asked = [(generated, 1.0, None), (fields, scale, group_by)]
    for folder, factor, separator in asked if same else [*asked, (reference, scale, group_by)]:
        files, _ = gather.beside(folder / "images" if (folder / "images").is_dir() else folder)
        pixels = [image_files.read(path, factor) for _, path in files]
        groups.append(room.Group(pixels, room.grouped(files, separator)))
    groups = [groups[0], *(room.halves(groups[1]) if same else groups[1:])]
    cells = None
    if detector:
        from ..data.formats import coco
        from ..detection import external

        data = coco.read(generated)
        by_name = {image.file_name: image.cells for image in data.images}
        finder = external.load(detector, data.categories, device)
        cells = room.Cells([by_name.get(name, ()) for name in groups[0].groups], finder)
    network = load(features, device=device)
    report = room.measure(groups[0], groups[1], groups[2], network, window, draws, seed, cells)
    report.write(out, "style")
    report.show()
    print(f"{out}/style.md")


def named(said: str) -> tuple[str, str]:
    """Return name and detector of `said`: NAME=DETECTOR, or the detector alone, called by the last part of its path."""
    found = NAMED.fullmatch(said)
    if found and not said.startswith(("results:", "command:")):
        return found["name"].strip(), found["what"]
    if said.startswith("command:"):
        return "command", said
    return re.sub(r"[^\w .+-]", "_", Path(said.removeprefix("results:")).name)[:40] or "detector", said


def loaded(said: list[str], data: Path, device: str) -> "dict[str, list[Finder]]":
    """Return the detectors that are `said`, by name; the same name again is another training."""
    from ..data.formats import coco
    from ..detection import external

    categories = coco.read(data).categories
    found: dict[str, list[Finder]] = {}
    for text in said:
        name, what = named(text)
        if name in (".", ".."):
            raise UsageError(f"{text[:80]}: give the detector a name, NAME=DETECTOR")
        found.setdefault(name, []).append(external.load(what, categories, device))
    return found


def _folders(said: list[str]) -> dict[str, Path]:
    """Return the folder of each of our detectors by name, the first training's; not of the bundled one."""
    pairs = [named(text) for text in said]
    ours = {name: what for name, what in reversed(pairs) if not what.startswith(("results:", "command:"))}
    return {name: model_folder(what, "detector") for name, what in ours.items() if what != "bundled"}
