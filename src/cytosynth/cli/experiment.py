"""`cytosynth experiment`: a command for each entry of `registry.TABLES`; those of the figures 7 and 8 are next door."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from ..augmentation import recipe
from ..augmentation.efficiency import recipe as efficiency_recipe
from ..config import override
from ..data.sources import Source
from ..errors import UsageError
from ..experiments import recipe as recipes
from ..io import lock
from ..registry import TABLES
from . import app, there
from .options import DataRoot, Device, Devices, Preset, RayOption, Run, Scale, Settings, Workers


class Tables(TyperGroup):
    """The commands of the registered tables and figures, of those from outside the package too."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name in TABLES:
            alone = typer.Typer(add_completion=False)
            alone.command(name)(TABLES.load(name))
            self.commands[name] = typer.main.get_command(alone)


experiment_app = typer.Typer(
    cls=Tables, help="Make the paper's tables and figures from your models.", no_args_is_help=True
)
app.add_typer(experiment_app, name="experiment")


def table1(
    run: Run,
    preset: Preset = "bundled",
    data_root: DataRoot = Path(),
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Table I: train every adapter for as many steps, generate fields, measure their distance to real images."""
    recipe = override(recipes.PRESETS[preset], settings or [])
    from ..experiments.table1 import table1 as make
    from .train import on

    on(device)
    make(recipe, run, data_root, device).show()
    print(f"{run}/table1.md")


def table2(
    run: Run,
    preset: Preset = "bundled",
    data_root: DataRoot = Path(),
    device: Devices = "auto",
    workers: Workers = None,
    ray: RayOption = None,
    settings: Settings = None,
) -> None:
    """Table II: train detectors on real images and on three training sets with synthetic ones; gains with intervals.

    With --set 'sets={"R + S": my_set}' the synthetic images are your own.
    """
    _augmentation(recipe.TABLE2[preset], run, data_root, device, workers, ray, settings)


def table3(
    run: Run,
    preset: Preset = "bundled",
    data_root: DataRoot = Path(),
    device: Devices = "auto",
    workers: Workers = None,
    ray: RayOption = None,
    settings: Settings = None,
) -> None:
    """Table III: as Table II on another domain, the Comparison Detector database.

    `cytosynth convert DATABASE DATA_ROOT/comparison-database --from comparison-detector` prepares it.
    """
    _augmentation(recipe.TABLE3[preset], run, data_root, device, workers, ray, settings)


def _augmentation(
    recipe: recipe.AugmentationRecipe,
    run: Path,
    data_root: Path,
    device: str,
    workers: int | None,
    ray: str | None,
    settings: list[str] | None,
) -> None:
    chosen = override(recipe, settings or [])
    from ..augmentation.experiment import table as make

    devices = device.split(",")
    for report in make(chosen, run, data_root, devices, workers or len(devices), ray):
        report.show()
    print(f"{run}/table.md {run}/gains.png")


def efficiency(
    run: Run,
    preset: Annotated[
        Literal["public", "few", "own", "rounds"],
        typer.Option(
            help="Generator: public (never saw the images) or own (the lab's); few: public, two images; rounds: for "
            "decisions only."
        ),
    ] = "public",
    on: Annotated[
        Literal["tuning", "test"],
        typer.Option(help="Images to score on; use 'test' once, after the freeze in docs/protocol.md."),
    ] = "tuning",
    prepare: Annotated[bool, typer.Option("--prepare", help="Only write the subsets, to train generators on.")] = False,
    check_power: Annotated[
        bool,
        typer.Option("--check-power", help="Only train R, twice, and estimate the smallest gain that can be shown."),
    ] = False,
    check_steps: Annotated[
        bool,
        typer.Option(
            "--check-steps", help="Only train R, and test whether its learning curve is flat at the last step."
        ),
    ] = False,
    choose: Annotated[
        bool, typer.Option("--choose", help="Choose a strategy on the tuning images, by the rule of `select`.")
    ] = False,
    data_root: DataRoot = Path(),
    device: Devices = "auto",
    workers: Workers = None,
    settings: Settings = None,
) -> None:
    """Measure whether synthetic cells help a lab with few images, and more than copy-paste (docs/protocol.md)."""
    chosen = override(efficiency_recipe.PRESETS[preset], settings or [])
    if sum((prepare, check_power, check_steps, choose)) > 1:
        raise UsageError("--prepare, --check-power, --check-steps and --choose cannot be combined; give one of them")
    if on == "test" and (check_power or check_steps or choose):
        raise UsageError("--on test: decisions are not made on the test images; leave --on out")
    from ..augmentation.efficiency import choice
    from ..augmentation.efficiency import efficiency as room

    devices = device.split(",")
    many = workers or len(devices)
    if prepare:
        for folder in room.prepare(chosen, run, data_root):
            print(folder)
        return
    if check_power:
        reports = [room.check_power(chosen, run, data_root, devices, many)]
    elif check_steps:
        reports = [room.check_steps(chosen, run, data_root, devices, many)]
    elif choose:
        reports = [choice.choose(chosen, run, data_root, devices, many)]
    else:
        reports = room.efficiency(chosen, run, data_root, on, devices, many)
    for report in reports:
        report.show()
    print(f"{run}/{on}")


def tables(
    folder: Annotated[
        Path, typer.Argument(callback=there, help="Folder of tables, such as results/ of the repository.")
    ],
) -> None:
    """Write the tables of a folder again, from the results stored in it."""
    from ..experiments.kept import tables as make

    for name in make(folder):
        print(f"{folder}/{name}.md")


def sanity(run: Run, settings: Settings = None, device: Device = "auto") -> None:
    """Sanity set: train detectors with the small backbone on images of ellipses and measure them on unseen ones."""
    recipe = override(recipes.SanityRecipe(), settings or [])
    from ..experiments.sanity import sanity as make
    from .train import on

    on(device)
    make(recipe, run).show()
    print(f"{run}/sanity.md, {run}/found.png")


def figure3(
    run: Run,
    data: Annotated[str, typer.Option(help="COCO data set, relative to --data-root.")] = "cric",
    split: Annotated[str, typer.Option(help="Part that the autoencoder was not trained on.")] = "test",
    scale: Scale = 0.5,
    foundation: Annotated[str, typer.Option(help="Foundation whose autoencoder is measured.")] = "bundled",
    window: Annotated[int, typer.Option(min=64, help="Side of the windows, a multiple of 8.")] = 256,
    data_root: DataRoot = Path(),
    device: Device = "auto",
) -> None:
    """Figure 3: reconstructions of normal and abnormal cells, with PSNR and SSIM."""
    from ..experiments.figure3 import figure3 as make

    with lock.only(run):
        make(Source(root=data, scale=scale, split=split), data_root, run, foundation, window, device=device).show()
    print(f"{run}/figure3.png")


def figure6(
    run: Annotated[Path, typer.Argument(help="Run folder of `experiment table1`.")],
    data_root: DataRoot = Path(),
    samples: Annotated[int, typer.Option(min=1, max=16, help="Number of fields of each adapter.")] = 4,
) -> None:
    """Figure 6: fields of every adapter next to real ones."""
    from ..config import read
    from ..errors import UserError
    from ..experiments.figure6 import figure6 as make

    path = run / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{run}: not a run of `experiment table1` (recipe.yaml is missing)")
    recipe = read(recipes.Table1Recipe, path)
    with lock.only(run):
        print(make(recipe, run, data_root, run, samples))
