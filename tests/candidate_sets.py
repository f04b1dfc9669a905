"""Real and synthetic drawn sets to select from, and the recipe and command line that do."""

import json
import shutil
from pathlib import Path

from PIL import Image as PILImage

from conftest import CATEGORIES, LICENCE, drawn
from cytosynth.annotations import Cell, DataSet, Image
from cytosynth.augmentation.select.recipe import SelectRecipe
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.provenance import write_records

MODELS = {"cell": "bundled 0123", "foundation": "bundled 4567"}


def write_synthetic(root: Path, count: int, first: int, original: str | None = None) -> None:
    """Write drawn fields as a set of synthetic images, with records; the last one has no abnormal cell."""
    (root / "images").mkdir(parents=True)
    images, records = [], []
    for index in range(count):
        pixels, cells = drawn(first + index)
        cells = [Cell(c.box, "NILM" if index == count - 1 else CATEGORIES[1 + n % 4]) for n, c in enumerate(cells)]
        name = f"{index:06d}.png"
        PILImage.fromarray(pixels).save(root / "images" / name)
        images.append(Image(name, 320, 288, tuple(cells), {"license": 1}))
        record = {"file_name": name, "origin": "synthetic", "width": 320, "height": 288, "models": MODELS}
        records.append(record | ({"original": original, "origin": "real-to-synthetic"} if original else {}))
    coco.write(DataSet(root / "images", tuple(images), CATEGORIES, (LICENCE,), {"synthetic": True}), root)
    write_records(root, records)


def write_candidates(fields: Path, root: Path) -> Path:
    """Write a real set and two synthetic ones to `root`; return it."""
    shutil.copytree(fields / "drawn", root / "drawn")
    write_synthetic(root / "made", 4, 100)
    write_synthetic(root / "other/made", 2, 200)
    return root


def small(**changes: object) -> SelectRecipe:
    base = SelectRecipe(
        preset="bundled", steps=1, window=128, neighbours=2, ratios=[0.25, 0.5, 1, 4], draws=10,
        training={"backbone": "small", "weights": "none", "window": 96, "batch_size": 1, "lr_schedule": "constant",
                  "warmup_steps": 0},
        real=[Source(root="drawn", split="train")], validation=Source(root="drawn", split="val"),
        synthetic=["made", "other/made"],
    )  # fmt: skip
    return SelectRecipe.model_validate(base.model_dump() | changes)


def selecting(run: Path, root: Path) -> list[str]:
    """Return the command line that chooses in `run` as `small` says from the sets of `root`."""
    recipe = json.loads(json.dumps(small().model_dump(mode="json")))
    settings = [part for key, value in recipe.items() if key not in ("synthetic", "preset")
                for part in ("--set", f"{key}={json.dumps(value)}")]  # fmt: skip
    sets = ["--synthetic", "made", "--synthetic", "other/made"]
    return ["select", str(run), *sets, "--data-root", str(root), *settings]
