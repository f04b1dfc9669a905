"""`cytosynth train foundation|normal|cell|detector`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from pydantic import BaseModel

from ..cell.recipe import PRESETS as CELL
from ..classifier import recipe as classifier_recipes
from ..config import override
from ..detection import recipe as detector_recipes
from ..errors import UsageError
from ..foundation.scratch import recipe as recipes
from ..normal import recipe as normal_recipes
from ..registry import ADAPTERS, CLASSIFIERS, DETECTORS
from . import app, there_if
from .options import DataRoot, Device, Run, Settings, TrainPreset

if TYPE_CHECKING:
    from ..training.loop import Outcome

train_app = typer.Typer(help="Train a model of the pipeline, or continue a training.", no_args_is_help=True)
app.add_typer(train_app, name="train")

Minutes = Annotated[float | None, typer.Option(min=0, help="Save a checkpoint and stop after N minutes.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Stop after N steps in total.")]
Data = Annotated[
    Path | None,
    typer.Option(
        callback=there_if, help="Data set to train on (its part 'train'); short for --set 'data=[{root: ...}]'."
    ),
]
Part = Annotated[Literal["all", "autoencoder", "decoder", "text", "denoiser"], typer.Option(help="Part to train.")]
R = TypeVar("R", bound=BaseModel)


@train_app.command()
def foundation(
    run: Run,
    data_root: DataRoot = Path(),
    part: Part = "all",
    data: Data = None,
    settings: Settings = None,
    device: Device = "auto",
    max_minutes: Minutes = None,
    max_steps: Steps = None,
) -> None:
    """Train a small Stable Diffusion, like the bundled one: autoencoder, text encoder, denoiser.

    `all` trains these three in turn; the complete model, in diffusers' layout, is then in RUN/denoiser/weights.
    `decoder` sharpens only the decoder, so that everything trained on its latents stays valid; with --set
    regenerated=FILE also on latents that a generator made (docs/training.md). --max-steps and --set apply to one part.
    """
    from ..evaluate import reconstruction
    from ..foundation.scratch import train as room

    on(device)
    if part == "all" and (settings or max_steps):
        raise UsageError("--set and --max-steps apply to one part; choose it with --part")
    if part in ("all", "autoencoder"):
        recipe = recipe_of(recipes.AUTOENCODER, data, settings, max_steps)
        if not ended(
            room.train_autoencoder(
                recipe, run / "autoencoder", data_root, max_minutes, measure=reconstruction.validation
            )
        ):
            return
    encoded = run / "autoencoder" / "weights"
    if part == "decoder":
        sharper = recipe_of(recipes.DECODER, data, settings, max_steps)
        ended(
            room.train_decoder(
                sharper, encoded, run / "decoder", data_root, max_minutes, measure=reconstruction.validation
            )
        )
    if part in ("all", "text"):
        words = recipe_of(recipes.TEXT, data, settings, max_steps)
        if not ended(room.train_text(words, run / "text", data_root, max_minutes)):
            return
    if part in ("all", "denoiser"):
        refined = [run / "decoder" / name for name in ("best", "weights")]
        vae = next((folder for folder in refined if folder.is_dir()), encoded)
        denoiser = recipe_of(recipes.DENOISER, data, settings, max_steps)
        text = run / "text" / "weights"
        ended(room.train_denoiser(denoiser, vae, text, run / "denoiser", data_root, max_minutes))


@train_app.command()
def normal(
    run: Run,
    data_root: DataRoot = Path(),
    preset: TrainPreset = "bundled",
    adapter: Annotated[str, typer.Option(help=f"Tuning method: {', '.join(ADAPTERS)}.")] = "lora",
    data: Data = None,
    settings: Settings = None,
    device: Device = "auto",
    max_minutes: Minutes = None,
    max_steps: Steps = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be trained and the memory it needs.")
    ] = False,
) -> None:
    """Train stage 1, the Normal Image Generator: an adapter on a foundation (Section III-B)."""
    if adapter not in ADAPTERS:
        raise UsageError(f"--adapter {adapter}: unknown adapter; choose one of {', '.join(ADAPTERS)}")
    chosen = recipe_of(normal_recipes.preset(preset, adapter), data, settings, max_steps)
    if dry_run:
        from ..normal.memory import report

        report(chosen).show()
        return
    from ..evaluate.held_out import HeldOut
    from ..normal.train import train_normal

    on(device)
    ended(train_normal(chosen, run, data_root, max_minutes, held_out=HeldOut))


@train_app.command()
def cell(
    run: Run,
    data_root: DataRoot = Path(),
    preset: TrainPreset = "bundled",
    data: Data = None,
    settings: Settings = None,
    device: Device = "auto",
    max_minutes: Minutes = None,
    max_steps: Steps = None,
) -> None:
    """Train stage 2, the Abnormal Cell Synthesizer, on a foundation (Section III-C)."""
    chosen = recipe_of(CELL[preset], data, settings, max_steps)
    from ..cell.train import train_cell

    on(device)
    ended(train_cell(chosen, run, data_root, max_minutes))


@train_app.command()
def detector(
    run: Run,
    data_root: DataRoot = Path(),
    preset: TrainPreset = "bundled",
    architecture: Annotated[str, typer.Option(help=f"Network: {', '.join(DETECTORS)}.")] = "faster-rcnn",
    data: Data = None,
    settings: Settings = None,
    device: Device = "auto",
    max_minutes: Minutes = None,
    max_steps: Steps = None,
) -> None:
    """Train a cell detector; the default recipe makes the bundled one, of NILM and four abnormal categories."""
    if architecture not in DETECTORS:
        raise UsageError(f"--architecture {architecture}: unknown architecture; choose one of {', '.join(DETECTORS)}")
    chosen = recipe_of(detector_recipes.preset(preset, architecture), data, settings, max_steps)
    from ..detection.train import train_detector
    from ..evaluate.detection.scoring import validation

    on(device)
    ended(train_detector(chosen, run, data_root, max_minutes, validation))


@train_app.command()
def features(
    run: Run,
    data_root: DataRoot = Path(),
    preset: TrainPreset = "bundled",
    architecture: Annotated[str, typer.Option(help=f"Network: {', '.join(CLASSIFIERS)}.")] = "resnet50",
    data: Data = None,
    settings: Settings = None,
    device: Device = "auto",
    max_minutes: Minutes = None,
    max_steps: Steps = None,
) -> None:
    """Train a cell classifier: for FID@Cytopathology, for `--gate`, or to measure edited cells."""
    chosen = recipe_of(classifier_recipes.preset(preset, architecture), data, settings, max_steps)
    from ..classifier.train import train_classifier

    on(device)
    ended(train_classifier(chosen, run, data_root, max_minutes))


def ended(outcome: "Outcome") -> bool:
    """Return whether a training finished; print a line if its minutes were over, else raise KeyboardInterrupt."""
    if outcome.stopped:
        raise KeyboardInterrupt
    if not outcome.finished:
        print(f"stopped at step {outcome.step}; the same command continues", file=sys.stderr)
    else:
        print(f"{outcome.weights.parent}: trained to step {outcome.step}; weights in {outcome.selected.name}/")
    return outcome.finished


def recipe_of(preset: R, data: Path | None, settings: list[str] | None, max_steps: int | None) -> R:
    """Return the `preset` with --data, --set and --max-steps applied."""
    given = [f"data=[{{root: {json.dumps(str(data.resolve()))}}}]"] if data else []
    given += [f"max_steps={max_steps}"] if max_steps else []
    return override(preset, [*given, *(settings or [])])


def on(device: str) -> None:
    """Let the training run on `device`."""
    from ..devices import use

    use(device)
