"""`cytosynth quiz make|score`."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from . import app, there

quiz_app = typer.Typer(help="Reader studies and teaching pages: which class, real or synthetic?", no_args_is_help=True)
app.add_typer(quiz_app, name="quiz")

Set = Path | None


@quiz_app.command()
def make(
    out: Annotated[Path, typer.Argument(help="A new folder: pages/ for the readers, key.json for you alone.")],
    real: Annotated[Set, typer.Option(callback=lambda p: p and there(p), help="Data set of real images.")] = None,
    synthetic: Annotated[Set, typer.Option(callback=lambda p: p and there(p), help="Synthetic data set.")] = None,
    mode: Annotated[str, typer.Option(help="class: which class? origin: real or synthetic?")] = "class",
    kind: Annotated[str, typer.Option(help="study: no answers on the page; teaching: feedback.")] = "study",
    categories: Annotated[str, typer.Option(help="Categories that are shown.")] = "NILM,ASC-US,ASC-H,LSIL,HSIL",
    per_class: Annotated[int, typer.Option(min=1, max=1000, help="Cells of each category and each set.")] = 10,
    blocks: Annotated[int, typer.Option(min=1, max=100, help="Parts, balanced by class, with a pause between.")] = 2,
    readers: Annotated[int, typer.Option(min=1, max=100, help="Pages: the same cells, each in another order.")] = 1,
    match: Annotated[str, typer.Option(help="Match real and synthetic cells by: size, sharpness or both.")] = "",
    side: Annotated[int, typer.Option(min=32, max=512, help="Side of the square shown, pixels at x20.")] = 128,
    real_split: Annotated[str, typer.Option(help="Part of the real set's split: train, val, test; or all.")] = "all",
    real_scale: Annotated[float, typer.Option(min=0.01, max=8, help="Factor that brings real images to x20.")] = 1.0,
    synthetic_scale: Annotated[float, typer.Option(min=0.01, max=8, help="The same of the synthetic ones.")] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Keep it secret: it tells the order. \\[default: random]"),
    ] = None,
    moodle: Annotated[bool, typer.Option("--moodle", help="Teaching: questions for Moodle too, moodle.xml.")] = False,
) -> None:
    """Make a quiz: pages that work without a network, and the key that scores the answers."""
    from ..config import validated
    from ..quiz import make as room
    from ..quiz.settings import QuizSettings

    values = {
        "mode": mode, "kind": kind, "seed": secrets.randbelow(2**63) if seed is None else seed,
        "categories": tuple(_listed(categories)), "per_class": per_class, "blocks": blocks, "readers": readers,
        "match": tuple(_listed(match)), "side": side, "real_split": real_split, "real_scale": real_scale,
        "synthetic_scale": synthetic_scale,
    }  # fmt: skip
    made = room.make(out, validated(QuizSettings, values, "quiz make"), real, synthetic, with_moodle=moodle)
    print(f"{out}/pages: {len(made.items)} cells, {readers} page{'' if readers == 1 else 's'} for the readers")
    print(f"{out}/key.json: keep it; `cytosynth quiz score {out}/key.json ANSWERS...` scores")


@quiz_app.command()
def score(
    key: Annotated[Path, typer.Argument(callback=there, help="key.json that `quiz make` wrote.")],
    answers: Annotated[list[Path], typer.Argument(help="Files of answers, JSON or CSV, one a reader.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables, the plot and report.md.")] = Path("score"),
) -> None:
    """Score answers: accuracy with intervals, sensitivity, specificity, d', confusion, kappa."""
    from ..quiz import answers as given
    from ..quiz import key as keys
    from ..quiz import report

    chosen = keys.read(key)
    tables = report.write(chosen, given.readings([there(path) for path in answers], chosen), out)
    for table in tables.values():
        table.show()
    print(f"{out}/{report.TEXT}")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
