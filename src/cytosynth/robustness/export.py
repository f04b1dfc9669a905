"""The varied images on disk, for detectors that predict elsewhere."""

from pathlib import Path

from ..data import sources
from ..detection import external
from ..errors import UserError
from ..io import atomic
from ..io.progress import meter
from .predictions import varied
from .recipe import RobustnessRecipe


def export_all(recipe: RobustnessRecipe, data_root: Path, out: Path) -> None:
    """Write a COCO data set (`images/`, `annotations.json` without cells) for each condition into `out`/CONDITION.

    Image ids count from 1 in the order of the data. A condition that is there is complete and left as it is. Raises
    UserError where `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder")
    samples = sources.load([recipe.data], data_root)[: recipe.limit]
    categories = sorted({cell.category for sample in samples for cell in sample.cells})
    conditions = recipe.conditions()
    with meter("conditions", len(conditions)) as bar:
        for condition in conditions:
            if not (out / condition).exists():
                images = ((sample.name, varied(sample, condition, recipe)[0]) for sample in samples)
                with atomic.folder(out / condition, fresh=True) as part:
                    external.written(images, len(samples), categories, part)
            bar.advance(condition)
