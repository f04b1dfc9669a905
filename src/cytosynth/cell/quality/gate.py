"""The quality gate: which edited cells are kept, and why the others are not. The paper keeps them all.

The classifier must not have been used in training the synthesizer; without it a cell must have a nucleus and no seam.
Each edited cell is checked separately, in the otherwise unedited image: the verdict does not depend on other cells.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...annotations import Box
from ...bethesda import NILM
from ...data.image_files import Pixels
from ...errors import UsageError
from ...io.progress import meter
from .. import patch
from ..settings import GateSettings
from . import morphology
from .colour import unseen
from .seam import seam
from .sharpness import against_surroundings
from .straight_edges import straightness

Matrix = NDArray[np.float64]
NUCLEUS = "nucleus"
"""The gate that needs no classifier."""
FAINTEST = 0.12
"""Optical density of a nucleus, above the slide's. Of those that `morphology.measure` finds in the patches of CRIC's
`val` part (119 NILM cells, at most eight an image, and all others) 2 % have less than 0.18."""


class CellClassifier(Protocol):
    """A classifier of cells."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of `probabilities`."""
        ...

    def probabilities(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> Matrix:
        """Return (n, classes) probabilities of the cells in `boxes` (xyxy) of n `windows` (height, width, 3)."""
        ...


class FeatureExtractor(Protocol):
    """A network whose features distinguish cells."""

    def features(self, windows: Sequence[Pixels], boxes: Sequence[Box]) -> Matrix:
        """Return (n, channels) features of the cells in `boxes` (xyxy) of n `windows` (height, width, 3)."""
        ...


@dataclass(frozen=True)
class Reference:
    """Real training crops in feature space; a cell at most `threshold` away from one is a copy of it.

    Attributes:
        network: extracts features.
        features: (n, channels) of the real crops, of unit length.
        threshold: Euclidean distance.
    """

    network: FeatureExtractor
    features: Matrix
    threshold: float

    @classmethod
    def of(
        cls, network: FeatureExtractor, windows: Sequence[Pixels], boxes: Sequence[Box], percentile: float
    ) -> "Reference":
        """Return the reference of real crops; the threshold is a percentile of their distances to each other.

        That is, of the distance of each crop to the nearest other one.
        """
        found = []
        with meter("features of the reference", len(windows)) as bar:
            for window, box in zip(windows, boxes, strict=True):
                found.append(network.features([window], [box])[0])
                bar.advance()
        features = _unit(np.stack(found))
        nearest = []
        for index, row in enumerate(features):
            distances = _distances(row, features)
            distances[index] = np.inf
            nearest.append(distances.min())
        return cls(network, features, float(np.percentile(nearest, percentile)))

    def distance(self, window: Pixels, box: Box) -> float:
        """Return how far the cell in `box` of `window` is from the nearest real crop."""
        return float(_distances(_unit(self.network.features([window], [box]))[0], self.features).min())


@dataclass(frozen=True)
class Verdict:
    """Why a cell was rejected (empty: it was accepted), and the scores behind the decision."""

    reasons: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Gate:
    """Checks edited cells by seam and nucleus; with a classifier also by class, normality and similarity to crops."""

    classifier: CellClassifier | None
    settings: GateSettings
    reference: Reference | None = None
    digest: str = ""

    def check(self, categories: Iterable[str]) -> None:
        """Raise UsageError if the classifier does not have one of `categories`, or NILM where that is needed."""
        if self.classifier is None:
            return
        asked = list(categories)
        needed = [*asked, *([NILM] if self.settings.less_normal else [])]
        missing = [name for name in needed if name not in self.classifier.classes]
        if missing:
            advice = "; or set gate.less_normal=false" if missing == [NILM] and NILM not in asked else ""
            raise UsageError(
                f"gate: the classifier knows {', '.join(self.classifier.classes)}, not {missing[0]}{advice}"
            )

    def verdict(self, original: Pixels, edited: Pixels, box: Box, changed: Box, category: str) -> Verdict:
        """Return the verdict on one edited cell.

        Args:
            original: (height, width, 3) image before any edit.
            edited: the same with this edit alone.
            box: xyxy of the cell, as it would be annotated.
            changed: xyxy of all that the edit may have changed (whole pixels).
            category: the intended one.
        """
        at = patch.corner(box, original.shape[1], original.shape[0])
        window, inner = patch.window(edited, at), patch.inner(box, at)
        wanted = self.settings
        reasons: list[str] = []
        scores = appearance(edited, original, changed)
        if self.classifier:
            reasons, classified = self._classified(self.classifier, patch.window(original, at), window, inner, category)
            scores = classified | scores
        reasons += self._conspicuous(scores)
        if wanted.nucleus or self.classifier is None:
            found = morphology.measure(window, inner)
            scores["nucleus_diameter"] = found.diameter if found else 0.0
            scores["nucleus_density"] = found.density if found else 0.0
            if scores["nucleus_density"] < FAINTEST:
                reasons.append(NUCLEUS)
        if self.reference:
            scores["distance"] = self.reference.distance(window, inner)
            if scores["distance"] <= self.reference.threshold:
                reasons.append("copy")
        return Verdict(tuple(reasons), {key: round(value, 6) for key, value in scores.items()})

    def _conspicuous(self, scores: Mapping[str, float]) -> list[str]:
        """Return the names of the `scores` of `appearance` that exceed the limits of the settings."""
        wanted = self.settings
        greatest = {"seam": wanted.seam, "colour": wanted.colour, "grain": wanted.grain,
                    "straightness": wanted.straightness}  # fmt: skip
        found = [name for name, limit in greatest.items() if limit is not None and scores[name] > limit]
        return found + (["detail"] if wanted.detail is not None and scores["detail"] < wanted.detail else [])

    def _classified(
        self, classifier: CellClassifier, original: Pixels, edited: Pixels, box: Box, category: str
    ) -> tuple[list[str], dict[str, float]]:
        """Return why the `classifier` rejects the cell in `box` of the window `edited`, and its probabilities.

        One cell at a time: in a batch rounding differs, and the verdict would depend on the other cells.
        """
        before, after = (
            dict(zip(classifier.classes, map(float, classifier.probabilities([window], [box])[0]), strict=True))
            for window in (original, edited)
        )
        wanted = self.settings
        reasons, scores = [], {"probability": after[category]}
        rank = sorted(after.values(), reverse=True).index(after[category]) + 1
        if rank > wanted.top and after[category] < wanted.probability:
            reasons.append("class")
        if wanted.less_normal and category != NILM:
            scores |= {"normal_before": before[NILM], "normal_after": after[NILM]}
            if after[NILM] >= before[NILM] or after[NILM] == max(after.values()):
                reasons.append("normal")
        return reasons, scores


def appearance(edited: Pixels, original: Pixels, changed: Box) -> dict[str, float]:
    """Return the score of the region `changed` of `edited` in its image by each criterion in this folder."""
    detail, grain = against_surroundings(edited, changed)
    return {
        "seam": seam(edited, original, changed), "colour": unseen(edited, original, changed), "detail": detail,
        "grain": grain, "straightness": straightness(edited, original, changed),
    }  # fmt: skip


def retry_seed(seed: int, attempt: int) -> int:
    """Return the seed of attempt number `attempt` (0 is the first) at a cell of `seed`."""
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0]) if attempt else seed


def acceptance(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return by category the cells tried, accepted at first attempt and accepted, and why attempts failed.

    `records` are those of `provenance.jsonl` of a run with a gate.
    """
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        for kept, cells in ((True, record["cells"]), (False, record.get("rejected", []))):
            for cell in cells:
                row = rows.setdefault(
                    cell["category"], {"tried": 0, "at_once": 0, "kept": 0, "attempts": 0, "reasons": Counter()}
                )
                attempts = cell.get("attempts", [])
                row["tried"] += 1
                row["kept"] += kept
                row["at_once"] += kept and len(attempts) == 1
                row["attempts"] += len(attempts)
                row["reasons"].update(reason for attempt in attempts for reason in attempt["reasons"])
    return [{"category": name, **rows[name]} for name in sorted(rows)]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return `rows` of `acceptance` as lines of a Markdown table."""
    titles = ["category", "cells tried", "accepted at first attempt", "accepted", "attempts", "why attempts failed"]
    lines = [f"| {' | '.join(titles)} |", "|---|---|---|---|---|---|"]
    for row in rows:
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(row["reasons"].items())) or "-"
        kept = f"{row['kept']} ({100 * row['kept'] / row['tried']:.0f} %)"
        values = [row["category"], row["tried"], row["at_once"], kept, row["attempts"], why]
        lines.append(f"| {' | '.join(map(str, values))} |")
    return lines


def _unit(features: Matrix) -> Matrix:
    scaled = features.astype(np.float64)
    return np.asarray(scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1e-12))


def _distances(row: Matrix, others: Matrix) -> Matrix:
    """Return the Euclidean distances of `others` (n, channels) from `row`, all of unit length."""
    return np.asarray(np.sqrt(np.maximum(2 - 2 * (others @ row), 0)))
