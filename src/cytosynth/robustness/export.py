"""The varied images on disk, for detectors that predict elsewhere."""

from pathlib import Path

from ..augmentation import inputs
from ..config import pin
from ..data import content, sources
from ..detection import external
from ..io import atomic, lock
from ..io.progress import meter
from .predictions import varied
from .recipe import RobustnessRecipe

FILE = "export.json"
"""What the pixels depend on; a folder without this file is not one of an export."""


def export_all(recipe: RobustnessRecipe, data_root: Path, out: Path) -> None:
    """Write a COCO data set (`images/`, `annotations.json` without cells) for each condition into `out`/CONDITION.

    Image ids count from 1 in the order of the data. A condition that is there is complete and left as it is; further
    ones may be added. Raises UsageError if `out` was started with other images, scale, seed or number of images.
    """
    with lock.run(out, FILE):
        wanted = recipe.model_dump(mode="json", include={"mpp", "limit", "seed"}) | {
            "data": inputs.annotations(data_root / recipe.data.root), "split": recipe.data.split,
            "scale": recipe.data.scale,
        }  # fmt: skip
        pin(wanted, out / FILE)
        samples = sources.load([recipe.data], data_root)[: recipe.limit]
        content.pinned({"images": content.digest(samples)}, out)
        categories = sorted({cell.category for sample in samples for cell in sample.cells})
        conditions = recipe.conditions()
        with meter("conditions", len(conditions)) as bar:
            for condition in conditions:
                if not (out / condition).exists():
                    images = ((sample.name, varied(sample, condition, recipe)[0]) for sample in samples)
                    with atomic.folder(out / condition, fresh=True) as part:
                        external.written(images, len(samples), categories, part)
                bar.advance(condition)
