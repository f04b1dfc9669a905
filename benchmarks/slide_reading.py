"""Finds planted cells on a large slide: `python benchmarks/slide_reading.py FOLDER SIDE` says time and peak memory.

Writes a slide of SIDE x SIDE pixels at 0.245 µm, mostly glass, with groups of dark discs, and runs what `cytosynth
detect` runs, with a detector that needs no training in the place of a network.
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from cytosynth.detection import folder
from slide_files import discs, matched, write_slide

RADIUS, GROUPS, CELLS = 16.0, 60, 60
"""Pixels of a disc; groups of discs, and how many are tried in each."""


def planted(side: int) -> list[tuple[float, float, float]]:
    """Return discs in groups, none nearer than 80 pixels to another."""
    rng = np.random.default_rng(0)
    found: list[tuple[float, float, float]] = []
    taken: set[tuple[int, int]] = set()
    for _ in range(GROUPS):
        middle = rng.uniform(2000, side - 2000, 2)
        for _ in range(CELLS):
            x, y = (middle + rng.normal(0, 700, 2)).round().tolist()
            at = (int(x) // 80, int(y) // 80)
            if not any((at[0] + dx, at[1] + dy) in taken for dx in (-1, 0, 1) for dy in (-1, 0, 1)):
                taken.add(at)
                found.append((x, y, RADIUS))
    return found


def main() -> None:
    """Write the slide, search it, and say what was found."""
    out, side = Path(sys.argv[1]), int(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    cells = planted(side)
    path = out / f"{side}.tif"
    if not path.exists():
        write_slide(path, (side, side), cells, mpp=0.245, levels=6)
    started, computed = time.time(), time.process_time()
    data = folder.detect(folder.gather(path), out / f"found{side}", discs())
    counts = matched([cell.box for cell in data.images[0].cells], cells, 4.0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{side}x{side}: {time.time() - started:.0f} s, {time.process_time() - computed:.0f} s of a core, peak "
        f"{peak:,.0f} MB; {len(cells)} cells, found {counts.count(1)} once, {counts.count(0)} not, "
        f"{sum(count > 1 for count in counts)} more than once; {data.images[0].extra['empty_glass']:.1%} is glass"
    )


if __name__ == "__main__":
    main()
