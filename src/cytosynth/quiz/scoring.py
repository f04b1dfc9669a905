"""`quiz score`: what the answers say, by reader, by class, by origin, and of the readers' agreement."""

from collections.abc import Sequence
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ..evaluate.statistics import Estimate, estimates
from ..io.report import Report, Value
from . import agreement, signal_detection
from .answers import Answer, Reading
from .key import Key, KeyItem
from .settings import CONFIDENCE, REAL, SYNTHETIC

RESAMPLES = 2000
ALL = "all readers"
Answered = tuple[KeyItem, Answer]
Indices = NDArray[np.int64]


def answered(key: Key, reading: Reading) -> list[Answered]:
    """Return the items of `key` that a reader answered, in the order of their ids, with the answers."""
    return [(item, reading.answers[item.id]) for item in sorted(key.items, key=lambda item: item.id)
            if item.id in reading.answers]  # fmt: skip


def right(key: Key, pair: Answered) -> bool:
    """Return whether the answer is the one of the key."""
    return pair[1].answer == key.answer(pair[0])


def accuracy(key: Key, pairs: Sequence[Answered]) -> Estimate:
    """Return the share of right answers of one reader with Wilson's interval."""
    return agreement.wilson(sum(right(key, pair) for pair in pairs), len(pairs))


def readers(key: Key, readings: Sequence[Reading], seed: int = 0) -> Report:
    """Return a row for each reader, and one for all."""
    origin = key.settings.mode == "origin"
    columns: tuple[str, ...] = ("reader", "cells", "missing", "accuracy", "low", "high")
    if origin:
        columns += ("sensitivity", "specificity", "d_prime", "criterion", "auc")
    columns += ("mean_confidence", "median_seconds")
    rows: list[tuple[Value, ...]] = []
    for reading in readings:
        pairs = answered(key, reading)
        row: list[Value] = [reading.reader, len(pairs), len(key.items) - len(pairs), *accuracy(key, pairs)]
        rows.append((*row, *(_detected(pairs) if origin else ()), *_manner(pairs)))
    everyone = [pair for reading in readings for pair in answered(key, reading)]
    whole: list[Value] = [ALL, len(everyone), len(key.items) * len(readings) - len(everyone)]
    whole += pooled(key, readings, seed)
    rows.append((*whole, *(_mean_detected(key, readings) if origin else ()), *_manner(everyone)))
    notes = [
        "accuracy of a reader: Wilson's 95 % interval over cells",
        f"{ALL}: mean of the readers; 95 % interval from {RESAMPLES} bootstrap resamples of whole images, the readers "
        "fixed: it does not speak of other readers",
        "a cell that a reader did not answer is left out of that reader's figures and counted as missing",
    ]
    if origin:
        notes.append(
            "sensitivity: synthetic cells called synthetic; specificity: real cells called real; d′ with log-linear "
            "correction (Hautus 1995), 0 is chance; AUC from answer and confidence, 0.5 is chance"
        )
    return Report(f"Readers of quiz {key.quiz}", facts(key, readings), columns, tuple(rows), tuple(notes))


def pooled(key: Key, readings: Sequence[Reading], seed: int = 0, origin: str = "") -> Estimate:
    """Return the mean accuracy of the readers, of cells of one `origin` if given, resampling whole images."""
    items, table = _table(key, readings, origin)
    if not len(items):
        return Estimate(float("nan"))

    def mean(chosen: Indices) -> list[float]:
        return [_mean_of_readers(table[:, chosen])]

    return estimates(mean, [[item.image for item in items]], RESAMPLES, seed, centred=False)[0]


def classes(key: Key, readings: Sequence[Reading]) -> Report:
    """Return a row for each category and origin: cells, answers, share right with its interval."""
    rows: list[tuple[Value, ...]] = []
    for category in key.settings.categories:
        for origin in _origins(key):
            pairs = [pair for reading in readings for pair in answered(key, reading)
                     if (pair[0].category, pair[0].origin) == (category, origin)]  # fmt: skip
            if pairs:
                cells = len({pair[0].id for pair in pairs})
                rows.append((category, origin, cells, len(pairs), *accuracy(key, pairs)))
    columns = ("category", "origin", "cells", "answers", "accuracy", "low", "high")
    note = "Wilson's 95 % interval over answers; those of several readers to one cell are not independent"
    return Report(f"Accuracy by class, quiz {key.quiz}", facts(key, readings), columns, tuple(rows), (note,))


def confusion(key: Key, readings: Sequence[Reading]) -> Report:
    """Return a row for each category and origin: how often it was answered with each choice."""
    rows: list[tuple[Value, ...]] = []
    for category in key.settings.categories:
        for origin in _origins(key):
            given = [pair[1].answer for reading in readings for pair in answered(key, reading)
                     if (pair[0].category, pair[0].origin) == (category, origin)]  # fmt: skip
            if given:
                rows.append((category, origin, len(given), *(given.count(choice) for choice in key.choices)))
    columns = ("category", "origin", "answers", *(f"called {choice}" for choice in key.choices))
    return Report(f"Confusion, quiz {key.quiz}", facts(key, readings), columns, tuple(rows), ())


def agreements(key: Key, readings: Sequence[Reading]) -> Report:
    """Return Cohen's kappa of each pair of readers and Fleiss' kappa of all, over the cells that they all answered."""
    rows: list[tuple[Value, ...]] = []
    for first, second in combinations(readings, 2):
        shared = sorted(first.answers.keys() & second.answers.keys())
        pair = [[reading.answers[item].answer for item in shared] for reading in (first, second)]
        kappa = agreement.cohen(*pair) if shared else None
        rows.append((first.reader, second.reader, "Cohen", len(shared), kappa))
    shared = sorted(set.intersection(*(set(reading.answers) for reading in readings)))
    if len(readings) > 1 and shared:
        answers = [[reading.answers[item].answer for reading in readings] for item in shared]
        rows.append((ALL, "", "Fleiss", len(shared), agreement.fleiss(answers)))
    columns = ("reader", "other", "kappa of", "cells", "kappa")
    notes = ("kappa: agreement beyond chance, 1 is complete, 0 is chance; no value where all answers are alike",)
    return Report(f"Agreement of the readers, quiz {key.quiz}", facts(key, readings), columns, tuple(rows), notes)


def origins(key: Key, readings: Sequence[Reading], seed: int = 0) -> Report | None:
    """Return accuracy on real and on synthetic cells of the same classes, and the difference; None with one kind only.

    Every class has as many cells of either origin, so the two means weigh classes alike.
    """
    if len(_origins(key)) < 2:
        return None
    (real, real_table), (made, made_table) = (_table(key, readings, origin) for origin in (REAL, SYNTHETIC))
    if not real or not made:
        return None

    def means(first: Indices, second: Indices) -> list[float]:
        one, two = _mean_of_readers(real_table[:, first]), _mean_of_readers(made_table[:, second])
        return [one, two, two - one]

    groups = [[item.image for item in items] for items in (real, made)]
    found = estimates(means, groups, RESAMPLES, seed, centred=False)
    names = (REAL, SYNTHETIC, "synthetic - real")
    rows = tuple((name, *value) for name, value in zip(names, found, strict=True))
    note = f"means of the readers; 95 % intervals from {RESAMPLES} bootstrap resamples of whole images of each set"
    title = f"Accuracy on real and synthetic cells at equal class, quiz {key.quiz}"
    return Report(title, facts(key, readings), ("cells", "accuracy", "low", "high"), rows, (note,))


def facts(key: Key, readings: Sequence[Reading]) -> dict[str, object]:
    """Return what a repetition needs."""
    said = key.settings.model_dump(mode="json", exclude={"readers"})
    sets = {f"{source.origin} set": f"{source.name} {source.digest}" for source in key.sources}
    return {"quiz": key.quiz, **said, **sets, "items": len(key.items), "readers": len(readings),
            "software": key.software}  # fmt: skip


def _origins(key: Key) -> list[str]:
    return [origin for origin in (REAL, SYNTHETIC) if any(item.origin == origin for item in key.items)]


def _table(key: Key, readings: Sequence[Reading], origin: str) -> tuple[list[KeyItem], NDArray[np.float64]]:
    """Return items that some reader answered, and (readers, items) of right 1, wrong 0, not answered NaN."""
    answered = set[str]().union(*(reading.answers for reading in readings))
    items = [item for item in sorted(key.items, key=lambda item: item.id)
             if item.id in answered and origin in ("", item.origin)]  # fmt: skip
    rows = []
    for reading in readings:
        answers = [reading.answers.get(item.id) for item in items]
        rows.append([np.nan if answer is None else float(answer.answer == key.answer(item))
                     for item, answer in zip(items, answers, strict=True)])  # fmt: skip
    return items, np.asarray(rows, dtype=np.float64).reshape(len(readings), len(items))


def _mean_of_readers(table: NDArray[np.float64]) -> float:
    """Return the mean over readers of their shares right; a reader without an answer in it is left out."""
    answered = (~np.isnan(table)).sum(axis=1)
    shares = np.nansum(table, axis=1)[answered > 0] / answered[answered > 0]
    return float(shares.mean()) if len(shares) else float("nan")


def _detected(pairs: Sequence[Answered]) -> tuple[Value, ...]:
    truth = [item.origin == SYNTHETIC for item, _ in pairs]
    called = [answer.answer == SYNTHETIC for _, answer in pairs]
    ratings = [answer.confidence if yes else -answer.confidence for (_, answer), yes in zip(pairs, called, strict=True)]
    found = signal_detection.detection(truth, called)
    area = signal_detection.area_under_curve(truth, ratings)
    return found.sensitivity, found.specificity, found.d_prime, found.criterion, area


def _mean_detected(key: Key, readings: Sequence[Reading]) -> tuple[Value, ...]:
    """Return the means of the readers' measures, each over those who have one."""
    rows = [_detected(answered(key, reading)) for reading in readings]
    columns = [[value for value in column if isinstance(value, float)] for column in zip(*rows, strict=True)]
    return tuple(float(np.mean(column)) if column else None for column in columns)


def _manner(pairs: Sequence[Answered]) -> tuple[Value, ...]:
    confidence = float(np.mean([answer.confidence for _, answer in pairs]))
    return round(confidence, 3), round(median(answer.milliseconds for _, answer in pairs) / 1000, 3)


def confidence_scale() -> str:
    """Return in words what the steps of confidence are."""
    return ", ".join(f"{number} {name}" for number, name in enumerate(CONFIDENCE, 1))
