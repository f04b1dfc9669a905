"""Progress with time left: a bar on a terminal and in a notebook, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False, markup=False, emoji=False)
LINE_EVERY = 20.0
"""Seconds between lines where there is no terminal."""
REDRAWN, WIDTH = 0.5, 30
"""Of the bar in a notebook: seconds between two drawings, and characters."""


class Meter:
    """Counts and shows the progress out of `total`."""

    def __init__(self, title: str, total: int, done: int = 0, bar: Progress | None = None) -> None:
        """Start at `done` of `total`."""
        self.title, self.total, self.done, self.first = title, total, done, done
        self.started = self.last_line = time.monotonic()
        self.bar = bar
        self.task = bar.add_task(title, total=total, completed=done, note="") if bar else None

    def advance(self, note: str = "", amount: int = 1) -> None:
        """Count `amount` more as done and show `note` next to it."""
        self.done += amount
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=amount, note=note)
            return
        now = time.monotonic()
        if now - self.last_line >= (REDRAWN if console.is_jupyter else LINE_EVERY) or self.complete:
            self.last_line = now
            left = (now - self.started) / max(self.done - self.first, 1) * (self.total - self.done)
            said = f"{self.done}/{self.total}, {clock(left)} left {note}"
            if console.is_jupyter:  # rich needs ipywidgets for its own; a carriage return takes none
                full = WIDTH * self.done // max(self.total, 1)
                said = f"\r{self.title} {'━' * full}{'─' * (WIDTH - full)} {said:<50}"
                print(said, end="\n" if self.complete else "", file=sys.stderr, flush=True)
            else:
                print(f"{self.title}: {said}", file=sys.stderr, flush=True)

    @property
    def complete(self) -> bool:
        """Whether this is a notebook's bar that has come to its end."""
        return console.is_jupyter and self.done == self.total

    def note(self, text: str) -> None:
        """Print `text` without counting."""
        console.print(f"{self.title}: {text}", soft_wrap=True)


@contextmanager
def meter(title: str, total: int, done: int = 0) -> Iterator[Meter]:
    """Yield a Meter that is shown until the block ends."""
    if not console.is_terminal:
        yield Meter(title, total, done)
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        yield Meter(title, total, done, bar)


def clock(seconds: float) -> str:
    """Return `seconds` as h:mm:ss or m:ss."""
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}" if hour else f"{minute}:{second:02d}"
