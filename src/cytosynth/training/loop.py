"""The training loop. To resume, run the same command again: it continues and ends at the same result.

The random state is set from (seed, rank, step, micro-step) before every micro-step, so that a run that was killed and
continued has the same data and the same noise as an uninterrupted one.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from .. import devices
from ..config import pin
from ..errors import UsageError
from ..io import atomic, lock, records
from ..io.progress import Meter, console, meter
from . import card, checkpoint, tensorboard, validation
from .recipe import Recipe
from .task import Task
from .tensorboard import Show
from .trainer import Trainer
from .validation import Best


class Outcome(NamedTuple):
    """Where a call of `train` ended.

    Attributes:
        step: the last. finished: whether all steps are done. weights: folder of the exported weights of that step.
        parameters: number of trained parameters. best: the weights with the best score on held-out data, if the recipe
        has scores. stopped: whether it was interrupted, even in its last step: subsequent work should not start.
    """

    step: int
    finished: bool
    weights: Path
    parameters: int = 0
    best: Best | None = None
    stopped: bool = False

    def completed(self, steps: int | None = None) -> "Outcome":
        """Return this outcome if the training, as part of a longer run, is complete, after `steps` if given.

        Raises KeyboardInterrupt if it was stopped, UsageError if it already has more steps.
        """
        if self.stopped or not self.finished:
            raise KeyboardInterrupt
        if steps is not None and self.step != steps:
            raise UsageError(
                f"{self.weights.parent}: trained for {self.step} steps, but {steps} are requested; use another folder"
            )
        return self

    @property
    def selected(self) -> Path:
        """The best weights, or the last if there are no scores."""
        return self.best.weights if self.best else self.weights

    @property
    def selected_step(self) -> int:
        """The step of the selected weights."""
        return self.best.step if self.best else self.step


class Stop:
    """Set by SIGINT or SIGTERM: the current step is finished and saved before the run ends."""

    requested = False


def train(
    build: Callable[[], Task],
    recipe: Recipe,
    run: Path,
    *,
    title: str,
    max_minutes: float | None = None,
) -> Outcome:
    """Train the task that `build` returns by `recipe` in the run folder `run`, or continue it there.

    Args:
        build: makes the task; called once, after the global seed is set.
        recipe: all settings; written to `recipe.yaml`, and compared with it when the run continues.
        run: run folder: `recipe.yaml`, `stats.jsonl`, `timing.jsonl`, `previews/`, `checkpoints/`, `weights/`,
            and, with `validate_every`, `validation.jsonl` and `best/`.
        title: of the progress bar.
        max_minutes: stop (saved, to be continued) after this many minutes of wall time.

    Returns where it ended. Raises UserError when another process trains there, or when a loss or a weight is no
    longer finite; UsageError if scores are requested and there is no held-out data.
    """
    with lock.run(run, "recipe.yaml") if devices.first() else nullcontext():
        return _train(build, recipe, run, title, max_minutes)


def _train(build: Callable[[], Task], recipe: Recipe, run: Path, title: str, max_minutes: float | None) -> Outcome:
    deadline = time.monotonic() + max_minutes * 60 if max_minutes is not None else math.inf
    if devices.first():
        _begin(recipe, run, title)
    trainer = Trainer(build, recipe, run)
    _resume(trainer)
    saved = trainer.step
    with (
        _stoppable() as stop,
        tensorboard.opened(recipe, run, trainer.step, trainer.main) as show,
        meter(title, recipe.max_steps, trainer.step) as bar,
    ):
        while trainer.step < recipe.max_steps and not trainer.agreed(
            stop.requested or time.monotonic() >= deadline or (trainer.main and validation.exhausted(run, recipe))
        ):
            trainer.advance()
            if _follow(trainer, title, show, bar):
                saved = trainer.step
        if trainer.step != saved:  # still within the block: who asks twice to stop loses nothing
            trainer.save()
        elif trainer.main:
            checkpoint.prune(run / "checkpoints", trainer.step, recipe.keep_checkpoints)
        trainer.batches.close()
        weights = run / "weights"
        if trainer.main:
            with trainer.evaluating(), atomic.folder(weights) as part:
                trainer.task.export(part)
                atomic.write_text(part / "README.md", card.weights_card(title, trainer.step, recipe))
    trainer.wait()
    finished = trainer.step >= recipe.max_steps or validation.exhausted(run, recipe)
    parameters = sum(parameter.numel() for parameter in trainer.parameters[0])
    return Outcome(trainer.step, finished, weights, parameters, validation.best(run), stop.requested)


def _begin(recipe: Recipe, run: Path, title: str) -> None:
    """Write the card and recipe of a run folder, or check that it has this recipe."""
    run.mkdir(parents=True, exist_ok=True)
    atomic.recover(run / validation.BEST)
    pin(recipe, run / "recipe.yaml", begun=any((run / "checkpoints").glob("*")))  # caches are named by content
    atomic.write_text(run / "README.md", card.run_card(title))


def _resume(trainer: Trainer) -> None:
    """Continue from the newest checkpoint, and drop the lines that were written after it."""
    for complaint in trainer.resume():
        console.print(complaint, soft_wrap=True)
    if trainer.main:
        for name in (records.STATS, records.TIMING, validation.SCORES):
            records.truncate(trainer.run / name, trainer.step)


def _follow(trainer: Trainer, title: str, show: Show, bar: Meter) -> bool:
    """Do what is due after a step: losses, scores, previews, a checkpoint; return whether one was written."""
    recipe, run, step = trainer.recipe, trainer.run, trainer.step
    if step % recipe.log_every == 0:
        _log(trainer, show)
    bar.advance(f"loss {trainer.last['loss']:.4f}" if trainer.last else "")
    if recipe.validate_every and step % recipe.validate_every == 0:
        trainer.check()
        if trainer.main:
            with trainer.evaluating():
                score = validation.validate(trainer.task, recipe, run, step, title)
            bar.note(f"step {step}: held-out score {score:.5g}")
            show(step, {"held-out score": score})
        trainer.wait()
    if step % recipe.preview_every == 0 and trainer.main:
        with trainer.evaluating():
            trainer.task.preview(run / "previews", step)
    if step % recipe.checkpoint_every:
        return False
    trainer.save()  # last: a kill loses what would follow it
    return True


def _log(trainer: Trainer, show: Show) -> None:
    """Read the losses, and write their means and the seconds of a step since the previous entry."""
    trainer.read()
    every, step = trainer.recipe.log_every, trainer.step
    entry = {name: total / every for name, total in trainer.sums.items()} | {"lr": trainer.rate}
    seconds = trainer.seconds / trainer.timed
    trainer.sums, trainer.seconds, trainer.timed = {}, 0.0, 0
    if trainer.main:
        records.append(trainer.run / records.STATS, {"step": step, **entry})
        show(step, entry)
        records.append(trainer.run / records.TIMING, {"step": step, "seconds": round(seconds, 4)})


@contextmanager
def _stoppable() -> Iterator[Stop]:
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield stop
        return

    def request(_signal: int, _frame: Any) -> None:
        stop.requested = True

    old = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
