"""How well a classifier distinguishes cells: accuracy, balanced accuracy and confusion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import augment
from ..io.plain import load
from ..io.progress import meter
from .crops import Crop
from .model import CellClassifier

BATCH = 64


def classify(classifier: CellClassifier, crops: Sequence[Crop], shift: int) -> NDArray[np.int64]:
    """Return the index of the most likely class of each of `crops`, without its margin of `shift`."""
    guesses, size = [np.zeros(0, np.int64)], classifier.config.size
    with meter("classifying held-out cells", len(crops)) as bar:
        for start in range(0, len(crops), BATCH):
            middles = [augment.crop(crop.pixels, shift, shift, size) for crop in crops[start : start + BATCH]]
            guesses.append(classifier.of_crops(middles).argmax(axis=1))
            bar.advance(amount=len(middles))
    return np.concatenate(guesses)


def scores(crops: Sequence[Crop], guesses: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Return accuracy, balanced accuracy, recall by class and confusion (truth to counts by guess) of `guesses`.

    The balanced accuracy is the mean recall of the classes that are there.
    """
    truth = np.array([classes.index(crop.category) for crop in crops])
    table = np.zeros((len(classes),) * 2, dtype=int)
    np.add.at(table, (truth, guesses), 1)
    present = table.sum(axis=1) > 0
    recalls = table.diagonal()[present] / table.sum(axis=1)[present]
    names = [name for name, there in zip(classes, present, strict=True) if there]
    return {
        "cells": len(crops),
        "accuracy": float((truth == guesses).mean()),
        "balanced_accuracy": float(recalls.mean()),
        "recall": dict(zip(names, map(float, recalls), strict=True)),
        "images": {name: len({crop.image for crop in crops if crop.category == name}) for name in classes},
        "confusion": {
            name: dict(zip(classes, map(int, row), strict=True)) for name, row in zip(classes, table, strict=True)
        },
    }


def lines(said: dict[str, Any], title: str) -> list[str]:
    """Return `said`, of `scores`, as lines for the console."""
    classes = len(said["confusion"])
    found = [
        f"{title}: accuracy {said['accuracy']:.3f}, balanced {said['balanced_accuracy']:.3f} "
        f"(chance {1 / classes:.2f}) on {said['cells']} cells"
    ]
    for category, row in said["confusion"].items():
        taken = ", ".join(f"{count} {name}" for name, count in row.items() if count)
        found.append(f"  {category} classified as: {taken or 'none held out'}")
    return found


def discrimination(folder: Path) -> str:
    """Return in words how well the network exported to `folder` distinguishes held-out cells."""
    path = folder.parent / "validation.json"
    if not path.is_file():
        return f"its accuracy is unknown; {path.name} is missing next to its weights"
    said = load(path)
    classes = len(said["confusion"])
    return (
        f"balanced accuracy {said['balanced_accuracy']:.3f} on {said['cells']} held-out cells of {classes} classes "
        f"(chance {1 / classes:.2f}); read distances between its features accordingly"
    )
