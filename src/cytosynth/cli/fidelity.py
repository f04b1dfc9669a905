"""`cytosynth evaluate fidelity|memorisation|membership`."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..io import lock
from ..io.bundled import cache_folder
from ..registry import EXTRACTORS
from . import there
from .evaluate import evaluate_app
from .options import Device, Foundation, Normal

if TYPE_CHECKING:
    from ..evaluate.networks.extractor import Extractor
    from ..io.report import Report

Features = Annotated[
    list[str] | None,
    typer.Option(help=f"Feature network, may be repeated: {', '.join(EXTRACTORS)}. \\[default: efficientnet-lite0]"),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=PATH", help="Weights of a feature network: a file or folder; may be repeated."),
]
Window = Annotated[
    int | None, typer.Option(min=32, help="Cut all images into windows of this side, pixels. \\[default: whole images]")
]
Count = Annotated[int | None, typer.Option(min=10, help="Maximum number of images on each side.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed (splits, subsampling, bootstrap).")]
Cache = Annotated[Path | None, typer.Option(help="Folder for cached features. \\[default: the user's cache folder]")]
Output = Annotated[Path | None, typer.Option(help="Folder for the table (JSON, Markdown, CSV) and images.")]
Scale = Annotated[float, typer.Option(min=0.01, max=8, help="Resize real images by this factor, to bring them to x20.")]
Part = Annotated[str | None, typer.Option(help="Part of the real data set. \\[default: all]")]


@evaluate_app.command()
def fidelity(
    generated: Annotated[Path, typer.Argument(callback=there, help="Folder of images, or COCO data set.")],
    real: Annotated[Path, typer.Argument(callback=there, help="Folder of images, or COCO data set.")],
    features: Features = None,
    weights: Weights = None,
    split: Part = None,
    scale: Scale = 1.0,
    window: Window = None,
    count: Count = None,
    seed: Seed = 0,
    cache: Cache = None,
    output: Output = None,
    device: Device = "auto",
) -> None:
    """Compare generated with real images: FID, KID, precision, recall, density, coverage, with real-vs-real floors."""
    from ..evaluate import fidelity, image_set

    extractors = _extractors(features, weights, device)
    with _alone(output):
        found = fidelity.compare(
            image_set.gather(generated, None, 1.0, window), image_set.gather(real, split, scale, window), extractors,
            cache or cache_folder(), count=count, seed=seed, sheets=output,
        )  # fmt: skip
        _finish(found, output, "fidelity")


@evaluate_app.command()
def memorisation(
    generated: Annotated[Path, typer.Argument(callback=there, help="Folder of images, or COCO data set.")],
    training: Annotated[Path, typer.Argument(callback=there, help="Images that the generator was trained on.")],
    held_out: Annotated[
        Path, typer.Argument(callback=there, help="Real images that it was not trained on; may be the same data set.")
    ],
    features: Annotated[str, typer.Option(help=f"Feature network: {', '.join(EXTRACTORS)}.")] = "efficientnet-lite0",
    weights: Weights = None,
    split: Annotated[str | None, typer.Option(help="Part of TRAINING that was trained on. \\[default: all]")] = None,
    held_out_split: Annotated[str | None, typer.Option(help="Part of HELD_OUT. \\[default: all]")] = None,
    scale: Scale = 1.0,
    window: Window = None,
    count: Count = None,
    seed: Seed = 0,
    cache: Cache = None,
    output: Output = None,
    device: Device = "auto",
) -> None:
    """Find copies: the nearest training image of each generated one, the rate of copies against held-out images."""
    from ..evaluate import image_set, memorisation

    with _alone(output):
        found = memorisation.measure(
            image_set.gather(generated, None, 1.0, window), image_set.gather(training, split, scale, window),
            image_set.gather(held_out, held_out_split, scale, window), _extractors([features], weights, device)[0],
            cache or cache_folder(), count=count, seed=seed, out=output,
        )  # fmt: skip
        _finish(found, output, "memorisation")


@evaluate_app.command()
def membership(
    members: Annotated[Path, typer.Argument(callback=there, help="Images that the generator was trained on.")],
    others: Annotated[
        Path, typer.Argument(callback=there, help="Real images that it was not trained on; may be the same data set.")
    ],
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    split: Annotated[str | None, typer.Option(help="Part of MEMBERS that was trained on. \\[default: all]")] = None,
    others_split: Annotated[str | None, typer.Option(help="Part of OTHERS. \\[default: all]")] = None,
    scale: Scale = 1.0,
    window: Window = None,
    count: Count = None,
    seed: Seed = 0,
    output: Output = None,
    device: Device = "auto",
) -> None:
    """Loss-threshold attack: does the loss reveal training images? AUC, and TPR at 1 % FPR."""
    import numpy as np

    from ..evaluate import image_set, membership
    from ..normal.generate import NormalImageGenerator
    from ..provenance import short

    with _alone(output):
        generator = NormalImageGenerator(foundation, None if normal == "none" else normal, device)
        sets = [
            image_set.gather(root, part, scale, window) for root, part in ((members, split), (others, others_split))
        ]
        rng = np.random.default_rng(seed)
        trained, unseen = (found.sample(min(len(found), count or len(found)), rng) for found in sets)
        found = membership.measure(
            generator.model, trained, unseen, generator.prompt, seed=seed, adapter=short(normal),
            digest=generator.digest,
        )  # fmt: skip
        _finish(found, output, "membership")


def _extractors(names: list[str] | None, weights: list[str] | None, device: str) -> "list[Extractor]":
    from ..evaluate.networks import features

    given = {}
    for text in weights or []:
        name, separator, path = text.partition("=")
        if not separator or name not in EXTRACTORS:
            raise UsageError(f"--weights {text}: expected NAME=PATH; NAME is one of {', '.join(EXTRACTORS)}")
        given[name] = Path(path)
    return [features.load(name, given.get(name), device) for name in names or ["efficientnet-lite0"]]


def _alone(output: Path | None) -> AbstractContextManager[None]:
    return lock.only(output) if output else nullcontext()


def _finish(report: "Report", output: Path | None, name: str) -> None:
    report.show()
    if output:
        report.write(output, name)
        print(f"{output}/{name}.md")
