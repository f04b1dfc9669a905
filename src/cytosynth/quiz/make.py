"""`quiz make`: pages for the readers and, apart from them, the organiser's key."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import UserError
from ..io import atomic, lock
from ..provenance import NOTICE, png
from . import cells, criteria, key, matching, moodle, page
from .cells import Candidate, Source
from .key import Key, KeyItem, KeySource
from .settings import CONFIDENCE, REAL, SYNTHETIC, QuizSettings, check

PAGES = "pages"
SHOWN = 512
"""Pixels of the screen that a cell's square fills at first, about."""
READ_ME = """This folder is the organiser's.

pages/     one page per reader; give these to the readers. They work without a network.
key.json   what each cell is; keep it. `cytosynth quiz score key.json ANSWERS...` needs it.

For teaching and research. Not for diagnosis.
"""


@dataclass(frozen=True)
class Shown:
    """A cell of the quiz as it is shown, and its line of the key."""

    item: KeyItem
    candidate: Candidate


def make(
    out: Path, settings: QuizSettings, real: Path | None, synthetic: Path | None, with_moodle: bool = False
) -> Key:
    """Write the quiz of `settings` on cells of the data sets `real` and `synthetic` into the new folder `out`.

    `out/pages` is for the readers, `out/key.json` for the organiser, and `out/moodle.xml`, where asked for, holds the
    cells with their answers as questions for Moodle. Raises UserError when a set has too few cells of a category.
    """
    check(settings, real is not None, synthetic is not None)
    if with_moodle and settings.kind == "study":
        raise UserError("--moodle: a question bank contains the answers; use --kind teaching")
    sources = [cells.source(real, REAL, settings)] if real else []
    sources += [cells.source(synthetic, SYNTHETIC, settings)] if synthetic else []
    shown = _shown(sources, settings)
    identity = _identity(settings, sources)
    made = Key(
        quiz=identity, software=f"CytoSynth {__version__}", settings=settings, items=[one.item for one in shown],
        sources=[KeySource(origin=s.origin, name=s.name, digest=s.digest, cells=len(s.cells)) for s in sources],
    )  # fmt: skip
    with lock.new(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: already exists; give a new folder")
        with atomic.folder(out, fresh=True) as part:
            key.write(made, part)
            atomic.write_text(part / "README.txt", READ_ME)
            for reader in range(1, settings.readers + 1):
                name = f"reader-{reader}.html" if settings.readers > 1 else "quiz.html"
                atomic.write_text(part / PAGES / name, _page(made, shown, reader, sources))
            if with_moodle:
                atomic.write_text(part / "moodle.xml", moodle.text(made, [(s.item, image(s)) for s in shown]))
    return made


def order(items: Sequence[KeyItem], seed: int, reader: int) -> list[KeyItem]:
    """Return `items` as the reader of that number sees them: by block, each block shuffled for this reader alone."""
    rng = np.random.default_rng([seed, 5, reader])
    blocks = sorted({item.block for item in items})
    shuffled: list[KeyItem] = []
    for block in blocks:
        mine = [item for item in items if item.block == block]
        shuffled += [mine[index] for index in rng.permutation(len(mine))]
    return shuffled


def image(shown: Shown) -> bytes:
    """Return the PNG of a cell whose origin may be revealed; a synthetic one is marked in its metadata."""
    assert shown.candidate.pixels is not None
    if shown.item.origin == REAL:
        return page.png_bytes(shown.candidate.pixels)
    return png(shown.candidate.pixels, {"origin": "synthetic", "crop_of": shown.item.image})


def _shown(sources: Sequence[Source], settings: QuizSettings) -> list[Shown]:
    """Return the cells of the quiz with their ids, in the order of the ids, which is a random one."""
    rng = np.random.default_rng([settings.seed, 4])
    chosen: list[tuple[Candidate, int]] = []
    for category in settings.categories:
        for several in _of_category(sources, category, settings, rng):
            several = [several[index] for index in rng.permutation(len(several))]
            chosen += [(one, 1 + index % settings.blocks) for index, one in enumerate(several)]
    numbered = [chosen[index] for index in rng.permutation(len(chosen))]
    return [Shown(_item(f"{number:04d}", *pair), pair[0]) for number, pair in enumerate(numbered, 1)]


def _of_category(
    sources: Sequence[Source], category: str, settings: QuizSettings, rng: np.random.Generator
) -> list[list[Candidate]]:
    """Return `per_class` cells of `category` of each source, matched to each other where that is asked for."""
    wanted = settings.per_class * (cells.POOL if settings.match else 1)
    pools = []
    for source in sources:
        found = cells.pool(source.cells, category, wanted, settings.side, rng)
        if len(found) < settings.per_class:
            raise UserError(
                f"{source.name}: {len(found)} usable cells of {category}, but --per-class is {settings.per_class}; "
                "give more data, a smaller --per-class, or --categories without it"
            )
        pools.append(cells.cut(found, settings))
    if len(pools) == 2:
        return list(matching.matched(pools[0], pools[1], settings.per_class, settings.match))
    return [pool[: settings.per_class] for pool in pools]


def _item(name: str, candidate: Candidate, block: int) -> KeyItem:
    assert candidate.pixels is not None
    diameter = matching.diameter(candidate.pixels)
    return KeyItem(
        id=name, category=candidate.cell.category, origin=candidate.origin,
        image=candidate.image, bbox_xyxy=candidate.cell.box, block=block,
        nucleus_diameter=None if diameter is None else round(diameter, 3),
        sharpness=round(matching.sharpness(candidate.pixels), 4), votes=candidate.votes,
    )  # fmt: skip


def _identity(settings: QuizSettings, sources: Sequence[Source]) -> str:
    """Return the identity of this quiz; it reveals nothing about the cells."""
    said = settings.model_dump_json() + "".join(source.digest for source in sources)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _page(made: Key, shown: Sequence[Shown], reader: int, sources: Sequence[Source]) -> str:
    """Return the page of a reader."""
    settings = made.settings
    by_id = {one.item.id: one for one in shown}
    teaching = settings.kind == "teaching"
    items = []
    for item in order(made.items, settings.seed, reader):
        one = by_id[item.id]
        assert one.candidate.pixels is not None
        entry: dict[str, Any] = {"id": item.id, "block": item.block}
        if teaching:
            entry |= {"image": page.data_address(image(one)), "truth": _truth(made, item)}
        else:
            entry["image"] = page.plain_png(one.candidate.pixels)
        items.append(entry)
    content = {
        "quiz": made.quiz, "order": reader, "kind": settings.kind, "mode": settings.mode, "side": settings.side,
        "zoom": max(1, SHOWN // settings.side), "blocks": settings.blocks, "choices": made.choices,
        "confidence": CONFIDENCE, "items": items,
        "criteria": {name: criteria.said(name) for name in settings.categories} if teaching else {},
    }  # fmt: skip
    title = "Cervical cytology: real or synthetic?" if settings.mode == "origin" else "Cervical cytology: which class?"
    return page.text(title, content, _notes(sources, settings))


def _truth(made: Key, item: KeyItem) -> dict[str, Any]:
    """Return what a teaching page says once a reader has answered."""
    said: dict[str, Any] = {
        "answer": made.answer(item), "category": item.category, "synthetic": item.origin == SYNTHETIC,
    }  # fmt: skip
    total = sum(item.votes.values())
    if total:
        ranked = sorted(item.votes.items(), key=lambda pair: (-pair[1], pair[0]))
        said["panel"] = f"Of {total} readers of the panel: " + ", ".join(f"{count} {name}" for name, count in ranked)
    return said


def _notes(sources: Sequence[Source], settings: QuizSettings) -> list[str]:
    """Return what the page says before it begins: what is synthetic, the licences, and where the criteria are from."""
    notes = []
    if any(source.origin == SYNTHETIC for source in sources):
        notes.append(f"Some of these cells are synthetic. {NOTICE}")
    licences = {str(entry.get("name", "")) for source in sources for entry in source.licences} - {""}
    if licences:
        notes.append(f"Licence of the images: {', '.join(sorted(licences))}.")
    if settings.kind == "teaching":
        notes += [f"The answers are the labels of the data set, no diagnosis. Criteria: {criteria.SOURCE}"]
    return notes
