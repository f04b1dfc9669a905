"""What `quiz score` writes: tables, a plot, and a text for the methods and results of a paper."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..io import atomic
from ..io.report import Report
from . import matching, scoring
from .answers import Reading
from .key import Key, KeyItem
from .settings import REAL, SYNTHETIC

PLOT = "score.png"
TEXT = "report.md"


def write(key: Key, readings: Sequence[Reading], out: Path, seed: int = 0) -> dict[str, Report]:
    """Write the tables (JSON, Markdown, CSV), `score.png` and `report.md` into `out`; return the tables by name."""
    found = {
        "readers": scoring.readers(key, readings, seed),
        "classes": scoring.classes(key, readings),
        "confusion": scoring.confusion(key, readings),
        "agreement": scoring.agreements(key, readings),
        "real_and_synthetic": scoring.origins(key, readings, seed),
    }
    tables = {name: table for name, table in found.items() if table is not None}
    for name, table in tables.items():
        table.write(out, name)
    _plot(key, tables, out / PLOT)
    atomic.write_text(out / TEXT, _text(key, readings, tables))
    return tables


def _text(key: Key, readings: Sequence[Reading], tables: dict[str, Report]) -> str:
    """Return the report: methods, results, limits."""
    return "\n".join(
        ["# Reader study", "", "## Methods", "", _methods(key, readings), "", _matched(key), "", "## Results", "",
         *_results(key, tables), "", f"![Accuracy and answers]({PLOT})", "", "## Limits", "",
         "The truth of a class is the label of the data set; of a synthetic cell it is the class that the program was "
         "asked for. Single cells were shown without the rest of the slide, history or other tests, which is not how "
         "smears are read. Intervals take the readers as fixed. Not for diagnosis.", ""]
    )  # fmt: skip


def _methods(key: Key, readings: Sequence[Reading]) -> str:
    settings = key.settings
    asked = "whether the cell was real or synthetic" if settings.mode == "origin" else "for the class of the cell"
    sets = " and ".join(
        f"{sum(item.origin == source.origin for item in key.items)} {source.origin} cells sampled from {source.cells} "
        f"of the data set {source.name} (annotations {source.digest})" for source in key.sources
    )  # fmt: skip
    one = len(readings) == 1
    return (
        f"{len(readings)} reader{'' if one else 's'} answered {asked} ({', '.join(key.choices)}) and how confident "
        f"{'the reader was' if one else 'they were'} (1 to 4: {scoring.confidence_scale()}). Shown were {sets}: "
        f"{settings.per_class} of each of {', '.join(settings.categories)} and each set, as squares of {settings.side} "
        f"pixels, in {settings.blocks} blocks with every class (and origin) equally often, in another order "
        f"on each page. Images were scaled by {settings.real_scale:g} (real) and {settings.synthetic_scale:g} "
        f"(synthetic). All were stored as uncompressed PNG of one size without metadata. "
        f"Seed {settings.seed}; {key.software}."
    )


def _matched(key: Key) -> str:
    """Return how alike the two origins are in size and sharpness, whether they were matched or not."""
    sides = [[item for item in key.items if item.origin == origin] for origin in (REAL, SYNTHETIC)]
    if not all(sides):
        return "Cells of one origin only were shown."
    how = f"matched for {' and '.join(key.settings.match)} within each class" if key.settings.match else "not matched"
    said = []
    for name, unit, values in (
        ("nucleus diameter", "pixels", _diameters),
        ("sharpness", "grey levels a pixel", _sharp),
    ):
        first, second = map(values, sides)
        gap = matching.difference(first, second)
        if first and second and gap is not None:
            said.append(f"{name} {np.mean(first):.3g} (real) and {np.mean(second):.3g} {unit} (synthetic), "
                        f"standardised difference {gap:+.2f}")  # fmt: skip
    return (
        f"Real and synthetic cells were {how}: {'; '.join(said)}." if said else f"Real and synthetic cells were {how}."
    )


def _diameters(items: Sequence[KeyItem]) -> list[float]:
    return [item.nucleus_diameter for item in items if item.nucleus_diameter is not None]


def _sharp(items: Sequence[KeyItem]) -> list[float]:
    return [item.sharpness for item in items]


def _results(key: Key, tables: dict[str, Report]) -> list[str]:
    """Return a sentence on each result, from the tables."""
    lines = []
    chance = 1 / len(key.choices)
    for values in _rows(tables["readers"]):
        line = f"- {values['reader']}: accuracy {_share(values)} (chance {chance:.2f})"
        if key.settings.mode == "origin":
            line += "; " + ", ".join(f"{name} {_number(values[column])}" for name, column in (
                ("sensitivity", "sensitivity"), ("specificity", "specificity"), ("d′", "d_prime"),
                ("criterion", "criterion"), ("AUC", "auc")))  # fmt: skip
        lines.append(f"{line}; {values['missing']} not answered, median time {values['median_seconds']} s.")
    for values in _rows(tables["agreement"]):
        who = f"{values['reader']} and {values['other']}" if values["other"] else str(values["reader"])
        lines.append(f"- {values['kappa of']}'s κ of {who}: {_number(values['kappa'])} over {values['cells']} cells.")
    if "real_and_synthetic" in tables and key.settings.mode == "class":
        both = " and ".join(f"{values['cells']} {_share(values)}" for values in _rows(tables["real_and_synthetic"]))
        lines.append(f"- Accuracy at equal class: {both}.")
    return lines


def _rows(report: Report) -> list[dict[str, object]]:
    return [dict(zip(report.columns, row, strict=True)) for row in report.rows]


def _share(values: dict[str, object]) -> str:
    if values["low"] is None:
        return _number(values["accuracy"])
    return f"{_number(values['accuracy'])} [{_number(values['low'])}, {_number(values['high'])}]"


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else "not defined" if value is None else str(value)


def _plot(key: Key, tables: dict[str, Report], path: Path) -> None:
    """Draw accuracy with intervals by reader and by class, and the confusion of answers."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = [(str(row["reader"]), row) for row in _rows(tables["readers"])]
    rows += [(f"{row['category']}, {row['origin']}", row) for row in _rows(tables["classes"])]
    for place, (_, row) in enumerate(rows):
        value, low, high = (row[name] for name in ("accuracy", "low", "high"))
        colour = "#1f5fae" if "reader" in row else "#6b7686"
        assert isinstance(value, float)
        if isinstance(low, float) and isinstance(high, float):
            left.plot([low, high], [place, place], color=colour)
        left.plot([value], [place], "o", color=colour)
    left.axvline(1 / len(key.choices), linestyle=":", color="black", label="chance")
    left.set(
        xlim=(0, 1), xlabel="accuracy, 95 % interval", yticks=range(len(rows)), yticklabels=[name for name, _ in rows]
    )
    left.invert_yaxis()
    left.legend(loc="lower left", fontsize=8)
    table = tables["confusion"].rows
    counts = np.array([row[3:] for row in table], dtype=np.float64)
    shares = counts / counts.sum(axis=1, keepdims=True)
    right.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        right.text(column, row, f"{int(counts[row, column])}", ha="center", va="center",
                   color="white" if share > 0.6 else "black")  # fmt: skip
    right.set(xticks=range(len(key.choices)), xticklabels=key.choices, xlabel="answer",
              yticks=range(len(table)), yticklabels=[f"{row[0]}, {row[1]}" for row in table])  # fmt: skip

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    atomic.write_bytes(path, buffer.getvalue())
