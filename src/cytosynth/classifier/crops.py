"""Square crops around annotated cells, from COCO data sets or from folders of cells, one per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ..annotations import Cell
from ..data import file_names, image_files
from ..data.image_files import Pixels
from ..data.sources import Source
from ..errors import UserError
from ..io.progress import meter
from .crop import square
from .recipe import ClassifierRecipe


@dataclass(frozen=True)
class Crop:
    """One cell.

    Attributes:
        pixels: (side, side, 3), the square around the cell with a margin for moving it.
        category: its class.
        image: data set and file name of the image that it is in.
    """

    pixels: Pixels
    category: str
    image: str = ""


def load(recipe: ClassifierRecipe, data_root: Path, held_out: bool = False) -> list[Crop]:
    """Return the cells of the recipe's categories in the parts of its sources.

    With `held_out`, those of the validation parts of sources that are trained on by their part 'train'. Raises
    UserError when a source is missing or, unless held out, when a category has no cell.
    """
    sources = recipe.data
    if held_out:
        sources = [source.model_copy(update={"split": "val"}) for source in sources if source.split == "train"]
    chosen = []
    for source in sources:
        data = source.read(data_root)
        chosen += [(source, data, image) for image in source.chosen(data, data_root)]
    crops: list[Crop] = []
    with meter("cutting out held-out cells" if held_out else "cutting out cells", len(chosen)) as bar:
        for source, data, image in chosen:
            cells = [cell for cell in image.cells if cell.category in recipe.categories]
            if cells:
                pixels = image_files.read(file_names.inside(data.folder, image.file_name), source.scale)
                name = f"{Path(source.root).name}/{image.file_name}"
                crops += [cut(pixels, cell.scaled(source.scale), recipe, name) for cell in cells]
            bar.advance()
    lacking = sorted(set(recipe.categories) - {crop.category for crop in crops})
    if lacking and not held_out:
        raise UserError(
            f"no cell of category {lacking[0]!r} in {_names(sources)}; set `categories` to those in the data"
        )
    return crops


def identity(crop: Crop) -> str:
    """Return what identifies `crop`: its image, category and pixels."""
    return f"{crop.image} {crop.category} {sha256(crop.pixels.tobytes()).hexdigest()}"


def cut(pixels: Pixels, cell: Cell, recipe: ClassifierRecipe, image: str = "") -> Crop:
    """Return the `square` around `cell` of `image`, with a margin of the recipe's `shift`."""
    return Crop(square(pixels, cell.box, recipe.context, recipe.size, recipe.shift), cell.category, image)


def _names(sources: Sequence[Source]) -> str:
    return ", ".join(source.root for source in sources)
