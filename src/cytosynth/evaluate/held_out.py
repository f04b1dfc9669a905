"""The distance to held-out images by which the best model is selected (Section IV-A)."""

from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from ..data.image_files import Pixels
from ..data.sources import Sample
from ..errors import UserError
from ..normal import regions
from ..normal.recipe import WindowRecipe
from . import distance
from .networks import features


class HeldOut:
    """Normal windows of held-out images, in the features of a network."""

    def __init__(self, recipe: WindowRecipe, samples: Sequence[Sample], cache: Path) -> None:
        """Take `validate_count` windows of `samples`; features are stored under `cache`.

        Raises UserError if `samples` have none.
        """
        weights = Path(recipe.validate_weights) if recipe.validate_weights else None
        self.extractor = features.load(recipe.validate_with, weights, str(PartialState().device))
        self.windows = regions.windows(samples, recipe.window, recipe.validate_count)
        if not self.windows:
            side = f"{recipe.window}x{recipe.window} pixels"
            where = (
                f"none of the {len(samples)} held-out images (part 'val') has a normal window of {side}; move others "
                "there"
                if samples
                else f"no held-out normal image of at least {side} to select the best by; add a part 'val'"
            )
            raise UserError(f"{where}, or set validate_every=0")
        self.features = features.cached(self.extractor, self.windows, cache / "features")

    def __call__(self, drawn: Sequence[Pixels]) -> float:
        """Return the kernel distance of generated images (`drawn`) to the windows: unbiased, over all of both."""
        size = min(len(drawn), len(self.windows))
        found = self.extractor(drawn[:size])
        return distance.kid(found, self.features[:size], subsets=1, subset_size=size).mean
