"""What a detector comes to on annotated pictures: COCO scores, those of draws of the pictures, where it fails."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..data.sources import Sample
from ..training.progress import meter
from . import failures, model
from .evaluate import Matches, Scores

MOST = 300
"""Detections of an image that count."""
LEAST = 0.05
"""Score below which a detector is not asked for cells."""


def scored(detector: model.Detector, test: Sequence[Sample], draws: int) -> dict[str, Any]:
    """Return scores of `detector` on `test`, those of `draws` draws of its images, and where it fails.

    The draws are the same for every detector, so that differences can be taken draw by draw.
    """
    truth, found = [sample.cells for sample in test], []
    with meter("detecting", len(test)) as bar:
        for sample in test:
            found.append(detector.find(sample.pixels, threshold=LEAST))
            bar.advance()
    categories = detector.config.categories
    matches = Matches(truth, found, categories, MOST)
    rng = np.random.default_rng(0)
    drawn = [_named(matches.scores(rng.integers(len(test), size=len(test)))) for _ in range(draws)]
    return {
        "scores": _named(matches.scores()),
        "drawn": {name: [row[name] for row in drawn] for name in drawn[0]},
        "failures": asdict(failures.failures(truth, found, categories)),
    }


def _named(scores: Scores) -> dict[str, float | None]:
    """Return the scores by the names of the tables, None where the images have no such cell."""
    values = {"mAP": scores.map, "mAP.5": scores.map_50, "mAP.75": scores.map_75, **scores.per_category}
    return {name: round(value, 6) if value == value else None for name, value in values.items()}
