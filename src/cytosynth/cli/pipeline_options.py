"""Options of the commands that run the pipeline, and the settings that follow from them."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from ..config import override, read
from ..errors import UsageError
from ..foundation.names import PredictionType
from ..registry import SAMPLERS
from ..synthesis.fast import NOT, Fast
from ..synthesis.settings import COMMAND, PipelineSettings, check
from ..variation.centre import Centre
from . import there

PREDICTIONS = get_args(PredictionType)
UNGATED = "--gate none: the first attempt at every cell is kept"
Plan = Annotated[Path | None, typer.Option(help="plan.json, which lists the cells of each image and their categories.")]
Counts = Annotated[
    str | None,
    typer.Option(
        metavar="HSIL=40,...", help="Number of cells of each category in the whole run; replaces category_weights."
    ),
]
GateFolder = Annotated[
    str,
    typer.Option("--gate", help="Quality gate: 'nucleus', 'bundled', the folder of a classifier, or 'none'."),
]
Tries = Annotated[
    int | None, typer.Option(min=1, max=100, help="Attempts at a cell until the gate accepts one. \\[default: 3]")
]
Vary = Annotated[
    Path | None,
    typer.Option(metavar="SPEC.yaml", help="Sample stain, optics and artefacts of each image from this distribution."),
]
StyleFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER|SLIDE", help="Imitate stain, focus and noise of these 5 to 50 unlabelled fields of a centre."
    ),
]
StyleMpp = Annotated[
    float | None,
    typer.Option(min=0.06, max=5, help="Micrometres per pixel of those fields; images then take their scale as well."),
]
Predicts = Annotated[
    str | None,
    typer.Option(
        "--prediction-type",
        help=f"What the foundation's U-Net predicts: {' or '.join(PREDICTIONS)}. \\[default: from its files]",
    ),
]


def excluded(plan: Path | None, options: dict[str, object]) -> None:
    """Raise UsageError for an option that a plan sets already."""
    for name, value in options.items():
        if plan and value is not None:
            raise UsageError(
                f"{name} {value}: the plan sets images, cells and seeds already; give {name} or --plan, not both"
            )


def sampler_of(name: str | None, *stages: str) -> dict[str, object]:
    """Return the setting of each of `stages`; raise UsageError if there is no sampler `name`."""
    if name is not None and name not in SAMPLERS:
        raise UsageError(f"--sampler {name}: unknown sampler; choose one of {', '.join(SAMPLERS)}")
    return {f"{stage}.sampler": name for stage in stages if name is not None}


def pipeline_settings(
    plan: Path | None,
    given: dict[str, object],
    counts: str | None,
    tries: int | None,
    changes: list[str] | None,
    cell: str,
    fast: Fast = NOT,
) -> PipelineSettings:
    """Return the settings of a run: of the plan or the defaults, then of `fast` weights and the options, then `--set`.

    What `fast` weights set is the plan's if it was made with such weights.
    """
    from ..cell.editing import targets
    from ..synthesis import plan as plans

    known = targets(cell)
    followed = plans.read(plan, known) if plan else None
    base = followed.base() if followed else COMMAND
    given = fast.settings(followed.models if followed else ()) | given
    options = [f"{key}={value}" for key, value in given.items() if value is not None]
    options += [f"gate.tries={tries}"] if tries is not None else []
    if counts is not None:
        base = base.model_copy(update={"counts": _counts(counts)})
    settings = override(base, [*options, *(changes or [])])
    check(settings, categories=known)
    return settings


def shown(
    settings: PipelineSettings, vary: Path | None, style_from: Path | None, style_mpp: float | None
) -> PipelineSettings:
    """Return `settings` with the centre whose appearance the images take."""
    if style_mpp is not None and style_from is None:
        raise UsageError(f"--style-mpp {style_mpp:g}: needs --style-from")
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
            raise UsageError(f"--counts {text}: expected CATEGORY=NUMBER,..., with each category once")
        asked[name.strip()] = int(number)
    return asked
