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
    out: Annotated[Path, typer.Argument(help="New folder: pages/ for the readers, key.json for you alone.")],
    real: Annotated[Set, typer.Option(callback=lambda p: p and there(p), help="Data set of real images.")] = None,
    synthetic: Annotated[Set, typer.Option(callback=lambda p: p and there(p), help="Synthetic data set.")] = None,
    mode: Annotated[
        str, typer.Option(help="Question: class (which category?) or origin (real or synthetic?).")
    ] = "class",
    kind: Annotated[
        str, typer.Option(help="study: no answers on the page; teaching: feedback after each cell.")
    ] = "study",
    categories: Annotated[str, typer.Option(help="Categories to show.")] = "NILM,ASC-US,ASC-H,LSIL,HSIL",
    per_class: Annotated[int, typer.Option(min=1, max=1000, help="Cells of each category and origin.")] = 10,
    blocks: Annotated[
        int, typer.Option(min=1, max=100, help="Blocks, balanced by category, with a pause between them.")
    ] = 2,
    readers: Annotated[
        int,
        typer.Option(
            min=1, max=100, help="Number of pages, one for each reader, with the same cells in different orders."
        ),
    ] = 1,
    match: Annotated[
        str, typer.Option(help="Match real and synthetic cells by size, sharpness or both (size,sharpness).")
    ] = "",
    side: Annotated[int, typer.Option(min=32, max=512, help="Side of the square that is shown, pixels at x20.")] = 128,
    real_split: Annotated[str, typer.Option(help="Part of the real data set: train, val, test or all.")] = "all",
    real_scale: Annotated[
        float, typer.Option(min=0.01, max=8, help="Resize real images by this factor, to bring them to x20.")
    ] = 1.0,
    synthetic_scale: Annotated[float, typer.Option(min=0.01, max=8, help="The same for synthetic images.")] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**63 - 1, help="Random seed; keep it secret, since it gives the order away. \\[default: random]"
        ),
    ] = None,
    moodle: Annotated[
        bool, typer.Option("--moodle", help="Teaching: also write moodle.xml, a question bank for Moodle.")
    ] = False,
) -> None:
    """Make a quiz: pages that work offline, and the key that scores the answers."""
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
    print(f"{out}/key.json: keep it; score with `cytosynth quiz score {out}/key.json ANSWERS...`")
    print(f"{out}/pages: {len(made.items)} cells, {readers} page{'' if readers == 1 else 's'} for the readers")


@quiz_app.command()
def score(
    key: Annotated[Path, typer.Argument(callback=there, help="key.json of `quiz make`.")],
    answers: Annotated[list[Path], typer.Argument(help="Answer files, JSON or CSV, one for each reader.")],
    out: Annotated[Path, typer.Option("--output", help="Folder for tables, plot and report.md.")] = Path("score"),
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
