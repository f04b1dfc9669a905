"""The distance to held-out images by which the best model is selected (Section IV-A)."""

from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from ..data.images import Pixels
from ..data.sources import Sample
from ..measure import distance, features
from . import places
from .recipe import NormalRecipe


class HeldOut:
    """Normal windows of pictures that are not trained on, in the features of a network."""

    def __init__(self, recipe: NormalRecipe, samples: Sequence[Sample], cache: Path) -> None:
        """Take `validate_count` windows of `samples`; features are kept under `cache`."""
        weights = Path(recipe.validate_weights) if recipe.validate_weights else None
        self.extractor = features.load(recipe.validate_with, weights, str(PartialState().device))
        self.windows = places.windows(samples, recipe.window, recipe.validate_count)
        if self.windows:
            self.features = features.cached(self.extractor, self.windows, cache / "features")

    def distance(self, drawn: Sequence[Pixels]) -> float:
        """Return the kernel distance of `drawn` pictures to the windows: unbiased, over all of both."""
        size = min(len(drawn), len(self.windows))
        found = self.extractor(drawn[:size])
        return distance.kid(found, self.features[:size], subsets=1, subset_size=size).mean
