"""Gains of `experiment efficiency` over the chains of several runs together, from their kept results.

    python benchmarks/pooled_gains.py results/efficiency_falling_kept.json results/efficiency_falling_again_kept.json

The runs must have the same size, arms, settings and test images, and other chains. Figures are AP.5 *abnormal* x 100,
as in the tables of a run.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from cytosynth.augmentation.efficiency import analysis, table
from cytosynth.augmentation.efficiency.table import Kept, Read
from cytosynth.evaluate.detection.scoring import ABNORMAL_AP
from cytosynth.evaluate.two_way import Gain
from cytosynth.io import plain


def read(path: Path) -> Read:
    """Return the results in the file `path`, a run's `kept.json`."""
    return Kept.model_validate(plain.load(path)).read()


def pooled(runs: Sequence[Read]) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Return the chains of all `runs` by arm, numbered anew."""
    first = runs[0]
    apart = {"seed", "chains", "earlier"}
    for run in runs[1:]:
        if run.recipe.model_dump(exclude=apart) != first.recipe.model_dump(exclude=apart) or run.tested != first.tested:
            raise SystemExit("the runs differ in more than their chains")
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        for (_, arm), chains in run.results.items():
            own = found.setdefault(arm, {})
            own |= {run.recipe.seed + chain: one for chain, one in chains.items()}
    if any(len(chains) != sum(run.recipe.chains for run in runs) for chains in found.values()):
        raise SystemExit("the runs share chains")
    return found


def gains(runs: Sequence[Read]) -> dict[tuple[str, str], tuple[Gain, int]]:
    """Return the gain of each arm over each other, and in how many chains it is above 0."""
    found = pooled(runs)
    result = {}
    for after, before in permutations(found, 2):
        observed, drawn = analysis.paired(found[after], found[before], ABNORMAL_AP)
        gain = analysis.gain_of(observed, drawn, runs[0].tested[""], runs[0].recipe.least)
        result[after, before] = gain, int((observed > 0).sum())
    return result


def main() -> None:
    """Read, pool and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kept", type=Path, nargs="+")
    for (after, before), (gain, above) in gains([read(path) for path in parser.parse_args().kept]).items():
        print(f"{after} against {before}: {table.said(gain)}, p {gain.p:.4f}, above in {above} of {gain.chains} chains")


if __name__ == "__main__":
    main()
