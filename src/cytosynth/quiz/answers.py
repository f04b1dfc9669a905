"""The answers of readers: the JSON or CSV file that a quiz page saves."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..io import plain
from ..io.wording import said
from .key import Key
from .settings import CONFIDENCE

COLUMNS = ("quiz", "reader", "item", "answer", "confidence", "milliseconds")
LONGEST = 60
"""Characters of a reader's code."""
DAY = 86_400_000
"""Milliseconds; no answer takes longer."""


@dataclass(frozen=True)
class Answer:
    """An answer to one item: what was chosen, how confident the reader was (1 to 4), and after which time."""

    item: str
    answer: str
    confidence: int
    milliseconds: int


@dataclass(frozen=True)
class Reading:
    """The answers of one reader, by item."""

    reader: str
    answers: dict[str, Answer]


def read(path: Path, key: Key) -> Reading:
    """Return the answers in the file `path` to the quiz of `key`.

    Raises UserError for a file that is no JSON or CSV of answers, of another quiz, with an item or an answer that the
    quiz does not have, or with an item twice.
    """
    try:
        text = plain.text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable file of answers ({str(error)[:120]})") from None
    quizzes, readers, entries = _json(path, text) if text.lstrip().startswith("{") else _csv(path, text)
    if quizzes != {key.quiz}:
        raise UserError(f"{path}: answers to quiz {said(min(map(str, quizzes)))}, but the key is of {key.quiz!r}")
    if len(readers) != 1:
        raise UserError(f"{path}: contains answers of {len(readers)} readers; give one file for each")
    answers: dict[str, Answer] = {}
    known = {item.id for item in key.items}
    for number, entry in enumerate(entries, 1):
        where = f"{path}: answer {number}"
        one = _answer(entry, where, key)
        if one.item not in known:
            raise UserError(f"{where}: the quiz has no item {said(one.item)}")
        if one.item in answers:
            raise UserError(f"{where}: item {one.item} is answered twice")
        answers[one.item] = one
    if not answers:
        raise UserError(f"{path}: contains no answers")
    return Reading(str(readers.pop())[:LONGEST], answers)


def readings(paths: Sequence[Path], key: Key) -> list[Reading]:
    """Return the answers in each of `paths`; raise UserError if two are of one reader."""
    found: list[Reading] = []
    for path in paths:
        one = read(path, key)
        if one.reader in {other.reader for other in found}:
            raise UserError(f"{path}: reader {said(one.reader)} also has answers in another file; give one of them")
        found.append(one)
    return found


def _json(path: Path, text: str) -> tuple[set[Any], set[str], list[Any]]:
    try:
        content = plain.from_json(text)
    except ValueError as error:
        raise UserError(f"{path}: not readable JSON ({str(error)[:120]})") from None
    entries, reader = content.get("answers"), content.get("reader")
    if not isinstance(entries, list) or not isinstance(reader, str) or not reader.strip():
        raise UserError(f"{path}: 'reader' and the list 'answers' are required, as a quiz page saves them")
    return {said_quiz(content)}, {plain.one_line(reader)}, entries


def _csv(path: Path, text: str) -> tuple[set[Any], set[str], list[Any]]:
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file of answers ({error})") from None
    if not rows or not set(COLUMNS) <= {name for name in rows[0] if name}:
        raise UserError(f"{path}: not answers; the columns {', '.join(COLUMNS)} are required")
    return {row["quiz"] for row in rows}, {plain.one_line(row["reader"]) for row in rows}, list(rows)


def said_quiz(content: Mapping[str, Any]) -> str:
    """Return the quiz that a JSON file of answers names."""
    return str(content.get("quiz"))[:60]


def _answer(entry: Any, where: str, key: Key) -> Answer:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: an object is expected")
    choice = entry.get("answer")
    if choice not in key.choices:
        raise UserError(f"{where}: answer {said(choice)}; the choices are {', '.join(key.choices)}")
    return Answer(
        str(entry.get("item")), choice, _whole(entry.get("confidence"), 1, len(CONFIDENCE), f"{where}: confidence"),
        _whole(entry.get("milliseconds"), 0, DAY, f"{where}: milliseconds"),
    )  # fmt: skip


def _whole(value: Any, least: int, most: int, where: str) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 12 else value
    if type(number) is not int or not least <= number <= most:
        raise UserError(f"{where} {said(value)}; a whole number from {least} to {most} is expected")
    return number
