"""How the quality gate scores real cells: where the thresholds of its criteria of appearance come from.

    python examples/gate_on_real_cells.py DATA/cric OUT --scale 0.5 --split val --box-scale 1.8

Every annotated cell is taken for an edit that changed nothing: the region is its box times `--box-scale`, the rest of
the image is the rest of the image. Writes percentiles of each score (`gate_scores`), and which share of each category
the gate with its default settings keeps, by criterion and in all (`gate_real_cells`).
"""

import argparse
from itertools import chain
from pathlib import Path

import numpy as np

from cytosynth.cell import patch
from cytosynth.cell.quality.gate import Gate, Verdict
from cytosynth.cell.settings import GateSettings
from cytosynth.data import sources
from cytosynth.data.sources import Source
from cytosynth.io.progress import meter
from cytosynth.io.report import Report

SCORES = ("seam", "colour", "detail", "grain", "straightness")
PERCENTILES = (1, 3, 5, 50, 95, 97, 99)
NOTES = ("An edit that changed nothing: the image is both the edited and the unedited one.",)


def main() -> None:
    """Read the options, score the cells, write two tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--scale", type=float, default=1.0)
    options.add_argument("--split", default="val")
    options.add_argument("--box-scale", type=float, default=1.8)
    given = options.parse_args()
    found = verdicts(given.data, given.scale, given.split, given.box_scale)
    facts = {"data": given.data.name, "scale": given.scale, "split": given.split, "box_scale": given.box_scale}
    percentiles(found, facts).write(given.out, "gate_scores")
    report = kept(found, facts)
    report.write(given.out, "gate_real_cells")
    report.show()


def verdicts(data: Path, scale: float, split: str, box_scale: float) -> dict[str, list[Verdict]]:
    """Return the gate's verdict on each cell of a part of the set `data` that a patch can hold, by category."""
    every = sources.load([Source(root=data.name, scale=scale, split=split)], data.parent)
    samples = [sample for sample in every if min(sample.size) >= patch.SIZE]
    gate = Gate(None, GateSettings())
    found: dict[str, list[Verdict]] = {}
    with meter("cells", sum(len(sample.cells) for sample in samples)) as bar:
        for sample in samples:
            for cell in sample.cells:
                if max(cell.size) <= patch.MOST:
                    region = patch.enlarge(cell.box, box_scale, *sample.size)
                    verdict = gate.verdict(sample.pixels, sample.pixels, cell.box, region, cell.category)
                    found.setdefault(cell.category, []).append(verdict)
                bar.advance()
    return dict(sorted(found.items()))


def percentiles(found: dict[str, list[Verdict]], facts: dict[str, object]) -> Report:
    """Return percentiles of each score over all cells."""
    everything = list(chain(*found.values()))
    rows = []
    for name in SCORES:
        values = np.percentile([one.scores[name] for one in everything], PERCENTILES)
        rows.append((name, *(round(float(value), 4) for value in values)))
    columns = ("score", *(f"{percent} %" for percent in PERCENTILES))
    return Report("Scores of real cells", facts | {"cells": len(everything)}, columns, tuple(rows), NOTES)


def kept(found: dict[str, list[Verdict]], facts: dict[str, object]) -> Report:
    """Return the share of cells that each criterion keeps, all of appearance, and these with the nucleus."""
    rows = []
    for category, some in [*found.items(), ("all", list(chain(*found.values())))]:
        passed = [1 - sum(name in one.reasons for one in some) / len(some) for name in SCORES]
        passed.append(sum(not set(one.reasons) & set(SCORES) for one in some) / len(some))
        passed.append(sum(not one.reasons for one in some) / len(some))
        rows.append((category, len(some), *(round(value, 3) for value in passed)))
    columns = ("category", "cells", *SCORES, "appearance", "with nucleus")
    return Report("Real cells that the gate keeps, share", facts, columns, tuple(rows), NOTES)


if __name__ == "__main__":
    main()
