"""`cytosynth evaluate steps`."""

from pathlib import Path
from typing import Annotated

import typer

from ..adapters.distilled import Stage
from ..errors import UsageError
from . import there, there_if
from .evaluate import Split, evaluate_app
from .options import Device, FastCell, FastNormal, Foundation, Model, Normal, Scale


@evaluate_app.command()
def steps(
    real: Annotated[
        Path, typer.Argument(callback=there, help="COCO data set of held-out real images with normal cells.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for images and tables; the same command continues it.")],
    split: Split = "test",
    scale: Scale = 1.0,
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    fast_normal: FastNormal = None,
    fast_cell: FastCell = None,
    steps: Annotated[
        str, typer.Option(help="Sampler steps to test; of weights of M phases M and its multiples.")
    ] = "1,2,4,8",
    seeds: Annotated[int, typer.Option(min=3, help="Number of seeds of the teacher.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    windows: Annotated[
        int, typer.Option(min=10, help="Number of normal windows for each seed and number of steps.")
    ] = 128,
    window: Annotated[int, typer.Option(min=64, help="Side of a normal window, pixels.")] = 256,
    cells: Annotated[int, typer.Option(min=10, help="Number of NILM cells to edit, each into every category.")] = 48,
    categories: Annotated[str, typer.Option(help="Categories to edit into.")] = "ASC-US,ASC-H,LSIL,HSIL",
    classifier: Annotated[
        Path | None,
        typer.Option(
            callback=there_if,
            help="Folder of a cell classifier, or of its training run, that had no part in training the synthesizer.",
        ),
    ] = None,
    features: Annotated[str, typer.Option(help="Feature network.")] = "efficientnet-lite0",
    weights: Annotated[
        Path | None, typer.Option(callback=there_if, help="Weights of the feature network, if it needs them.")
    ] = None,
    device: Device = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example cell.strength=0.7."),
    ] = None,
) -> None:
    """Compare few-step models with their teacher: distances, recall, coverage, nuclei, seams, against its own seeds."""
    if fast_normal is None and fast_cell is None:
        raise UsageError("evaluate steps: give --fast-normal, --fast-cell or both: 'bundled', a folder or a run")
    from ..config import override, validated
    from ..data.sources import Source
    from ..distill.steps_recipe import StepsRecipe, samplers, taught

    fast: dict[Stage, str | None] = {"normal": fast_normal, "cell": fast_cell}
    teachers = taught(fast)
    asked = {
        "real": Source(root=real.name, scale=scale, split=split), "seed": seed, "seeds": seeds, "windows": windows,
        "cells": cells, "categories": categories.split(","), "steps": [part.strip() for part in steps.split(",")],
        "normal": {"size": window} | teachers.get("normal", {}), "cell": teachers.get("cell", {}),
        "samplers": samplers(fast),
    }  # fmt: skip
    recipe = override(validated(StepsRecipe, asked, "evaluate steps"), settings or [])
    from ..cell.edit import CellEditor
    from ..classifier.model import CellClassifier
    from ..distill.acceptance import Models, evaluate_steps
    from ..evaluate.networks import features as networks
    from ..io.bundled import model_folder
    from ..normal.generate import NormalImageGenerator

    models = Models(networks.load(features, weights, device))
    if fast_normal is not None:
        adapter = None if normal == "none" else normal
        models.normal = (
            NormalImageGenerator(foundation, adapter, device),
            NormalImageGenerator(foundation, adapter, device, distilled=fast_normal),
        )
    if fast_cell is not None:
        models.cell = (
            CellEditor.load(foundation, cell, device), CellEditor.load(foundation, cell, device, distilled=fast_cell)
        )  # fmt: skip
    place = model_folder(str(classifier), "classifier") if classifier else None
    models.classifier = CellClassifier.load(place, device) if place else None
    evaluate_steps(recipe, models, real.parent, out).show()
    print(f"{out}/steps.md")
