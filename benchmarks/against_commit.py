"""Seconds of an annotated image against those of an earlier commit, in one run.

    git worktree add ../before b0681fc
    python benchmarks/against_commit.py [--images 4] [--repeats 3] ../before [-- options of the new command]

Both make images of eight cells with the models that are bundled with them, in turns, by their command `synthesize`.
What an image costs with the models loaded is the time of a run of many images less that of a run of one, divided by
their number.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OLD, NEW = ("fewest=8", "most=8"), ("min_cells=8", "max_cells=8")
"""Settings of the number of cells, as each of them calls it."""


def seconds(tree: Path, count: int, options: list[str]) -> float:
    """Return how long the command in `tree` takes to make `count` images."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cytosynth", "synthesize", f"{folder}/out", "--count", str(count), *options]
        begun = time.perf_counter()
        subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tree / "src")}, check=True, capture_output=True)
        return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout of the earlier commit")
    parser.add_argument("--images", type=int, default=4, help="images of the longer run, besides its first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("new", nargs="*", help="further options of the new command, after --")
    given = parser.parse_args()
    trees = {"before": (given.before, OLD, []), "now": (Path(__file__).parents[1], NEW, given.new)}
    found: dict[str, list[float]] = {name: [] for name in trees}
    for number in range(given.repeats):
        for name, (tree, cells, further) in trees.items():
            options = [*(flag for change in cells for flag in ("--set", change)), *further]
            one, many = (seconds(tree.resolve(), count, options) for count in (1, 1 + given.images))
            found[name].append((many - one) / given.images)
            print(f"{number + 1}: {name} {found[name][-1]:.2f} s an image", flush=True)
    before, now = (statistics.median(found[name]) for name in ("before", "now"))
    print(f"before {before:.2f} s, now {now:.2f} s an image: {before / now:.1f} times as fast")


if __name__ == "__main__":
    main()
