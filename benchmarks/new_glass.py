"""How often an edit puts empty glass where the cell had none, in the folder of an `evaluate cells`.

    python benchmarks/new_glass.py DATA OUT [OUT ...]

DATA is the parent of the data set that was measured. Glass is as bright as the brightest 3 % of a patch, less 7 %. Of
the cells with at most 5 % of glass in the ellipse of their region before the edit, it prints the share with more than
10 % after it.
"""

import argparse
from pathlib import Path

import numpy as np

from cytosynth.config import read
from cytosynth.data import image_files
from cytosynth.data.image_files import Pixels
from cytosynth.evaluate.cells import patches
from cytosynth.evaluate.cells.patches import CellPatch
from cytosynth.evaluate.cells.recipe import Editing

BRIGHTEST, LESS, FEW, MUCH = 97, 0.93, 0.05, 0.1


def glass(cell: CellPatch, pixels: Pixels, editing: Editing) -> float:
    """Return the share of glass, by the brightness of the patch of `cell`, in its region in `pixels`."""
    x0, y0, x1, y1 = patches.region(cell, editing.cell)
    y, x = np.indices(pixels.shape[:2]) + 0.5
    inside = np.hypot((2 * x - x0 - x1) / (x1 - x0), (2 * y - y0 - y1) / (y1 - y0)) < 1
    level = LESS * np.percentile(cell.pixels.min(axis=2), BRIGHTEST)
    return float((pixels.min(axis=2)[inside] > level).mean())


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="+")
    given = parser.parse_args()
    for out in given.out:
        editing = read(Editing, out / "editing.yaml")
        cells = {cell.key: cell for cell in patches.real(editing.real, given.data)}
        for folder in sorted((out / "edited").iterdir()):
            after = []
            for path in sorted(folder.glob("*.png")):
                cell = cells[path.stem]
                if glass(cell, cell.pixels, editing) <= FEW:
                    new = patches.put_back(cell, image_files.read(path), editing.cell)
                    after.append(glass(cell, new, editing) > MUCH)
            print(f"{out}: {folder.name}: {np.mean(after) if after else float('nan'):.2f} of {len(after)} cells")


if __name__ == "__main__":
    main()
