"""The training loop. To resume, run the same command again: it continues and ends at the same result.

Randomness is drawn anew from (seed, rank, step, micro-step) before every micro-step, so that a run that
was killed and continued sees the same data and the same noise as one that was not.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.training_utils import EMAModel

from .. import devices
from ..config import pin
from ..errors import UserError
from ..io import atomic, lock, records
from ..io.progress import console, meter
from . import card, tensorboard, validation
from . import checkpoint as checkpoints
from .optimizer import build as build_optimizer
from .optimizer import lr_factor
from .recipe import Recipe
from .task import Batch, Task
from .validation import Best


class Outcome(NamedTuple):
    """Where a call of `train` ended.

    Attributes:
        step: the last.
        finished: whether there is nothing left to do.
        weights: folder of the exported weights of that step.
        parameters: how many numbers were trained.
        best: the weights with the best score on held-out data, where the recipe asks for scores.
        stopped: whether it was asked to stop, be it in its last step: what follows it should not begin.
    """

    step: int
    finished: bool
    weights: Path
    parameters: int = 0
    best: Best | None = None
    stopped: bool = False

    @property
    def selected(self) -> Path:
        """The best weights, or the last where no score was taken."""
        return self.best.weights if self.best else self.weights

    @property
    def selected_step(self) -> int:
        """The step of the selected weights."""
        return self.best.step if self.best else self.step


class Stop:
    """Set by SIGINT or SIGTERM: the step in hand is finished and saved before the run ends."""

    requested = False


def train(
    build: Callable[[], Task],
    recipe: Recipe,
    run: Path,
    *,
    title: str,
    max_minutes: float | None = None,
) -> Outcome:
    """Train what `build` makes by `recipe` in the run folder `run`, or continue it there.

    Args:
        build: makes the task; called once, after the global seed is set.
        recipe: all settings; written to `recipe.yaml`, and compared with it when the run continues.
        run: run folder: `recipe.yaml`, `stats.jsonl`, `timing.jsonl`, `previews/`, `checkpoints/`, `weights/`,
            and, with `validate_every`, `validation.jsonl` and `best/`.
        title: what the progress bar says.
        max_minutes: stop (saved, to be continued) after so many minutes of wall time.

    Returns where it ended. Raises UserError when another process trains there, or when the loss is no longer
    finite; UsageError when scores are asked for and nothing is held out.
    """
    with lock.run(run, "recipe.yaml") if devices.first() else nullcontext():
        return _train(build, recipe, run, title, max_minutes)


def _train(build: Callable[[], Task], recipe: Recipe, run: Path, title: str, max_minutes: float | None) -> Outcome:
    deadline = time.monotonic() + max_minutes * 60 if max_minutes is not None else math.inf
    AcceleratorState._reset_state()  # one process may train several parts, each in its own precision
    accelerator = Accelerator(
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        cpu=not torch.accelerator.is_available(),  # without it several processes on a CPU ignore each other
    )
    torch.backends.cudnn.deterministic = True  # a GPU's gradients of convolutions would differ from run to run
    main = accelerator.is_main_process
    if main:
        run.mkdir(parents=True, exist_ok=True)
        atomic.recover(run / validation.BEST)
        pin(recipe, run / "recipe.yaml", begun=any((run / "checkpoints").glob("*")))  # caches are named by content
        atomic.write_text(run / "README.md", card.run_card(title))
    torch.manual_seed(recipe.seed)
    task = build().train()
    frozen = checkpoints.fingerprint(task, {name for name, _ in [*task.trained(), *task.trained_buffers()]})
    groups = task.groups()
    parameters = [parameter for group, _ in groups for parameter in group]
    optimizer = build_optimizer(recipe, groups)
    ema = EMAModel(parameters, decay=recipe.ema_decay, use_ema_warmup=True, power=0.75) if recipe.ema_decay else None
    model, optimizer = accelerator.prepare(task, optimizer)
    if ema:
        ema.to(accelerator.device)
    task = accelerator.unwrap_model(model)

    step, sums = 0, {}
    resumed, complaints = checkpoints.newest(run / "checkpoints")
    for complaint in complaints:
        console.print(complaint, soft_wrap=True)
    if resumed:
        checkpoints.same_frozen(resumed, frozen, run)
        step, sums = resumed.step, dict(resumed.extra["sums"])
        _restore(task, optimizer, ema, accelerator, resumed)
    if main:
        records.truncate(run / records.STATS, step)
        records.truncate(run / records.TIMING, step)
        records.truncate(run / validation.SCORES, step)

    def save() -> None:
        if main:
            keep = checkpoints.Checkpoint(
                step=step,
                weights=dict(task.trained()) | dict(task.trained_buffers()),
                optimizer=checkpoints.flatten_optimizer(optimizer),
                ema={str(i): p for i, p in enumerate(ema.shadow_params)} if ema else {},
                extra={
                    "sums": sums,
                    "frozen": frozen,
                    "ema_step": ema.optimization_step if ema else 0,
                    "scaler": _scaler(accelerator),
                },
            )
            checkpoints.save(run / "checkpoints", keep, recipe.keep_checkpoints)

    saved = step
    with (
        _stoppable() as stop,
        tensorboard.opened(recipe, run, step, main) as show,
        meter(title, recipe.max_steps, step) as bar,
    ):
        while step < recipe.max_steps and not _agreed(
            accelerator, stop.requested or time.monotonic() >= deadline or (main and validation.exhausted(run, recipe))
        ):
            started = time.monotonic()
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * group["factor"] * lr_factor(recipe, step)
            for micro in range(recipe.gradient_accumulation):
                rng = _seed(recipe.seed, accelerator.process_index, step, micro)
                batch = _to(task.batch(rng, recipe.batch_size), accelerator.device)
                with accelerator.accumulate(model):
                    losses = model(batch)
                    accelerator.backward(losses["loss"])
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(parameters, recipe.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                if not math.isfinite(float(losses["loss"].detach())):
                    raise UserError(
                        f"{run}: the loss is {float(losses['loss'].detach())} at step {step}; lower learning_rate, or "
                        "mixed_precision=no; the last checkpoint is untouched"
                    )
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach()) / recipe.gradient_accumulation
            step += 1
            if ema:
                ema.step(parameters)
            if step % recipe.log_every == 0 and main:
                means = {name: total / recipe.log_every for name, total in sums.items()}
                records.append(run / records.STATS, {"step": step, **means, "lr": optimizer.param_groups[0]["lr"]})
                show(step, means | {"lr": optimizer.param_groups[0]["lr"]})
                records.append(run / records.TIMING, {"step": step, "seconds": round(time.monotonic() - started, 4)})
            bar.advance(f"loss {float(losses['loss'].detach()):.4f}")
            if step % recipe.log_every == 0:
                sums = {}
            if recipe.validate_every and step % recipe.validate_every == 0:
                if main:
                    with _averaged(ema, parameters), evaluating(task):
                        score = validation.validate(task, recipe, run, step, title)
                    bar.note(f"step {step}: held-out score {score:.5g}")
                    show(step, {"held-out score": score})
                accelerator.wait_for_everyone()
            if step % recipe.preview_every == 0 and main:
                with _averaged(ema, parameters), evaluating(task):
                    task.preview(run / "previews", step)
            if step % recipe.checkpoint_every == 0:  # last: a kill loses what would follow it
                save()
                saved = step
        if step != saved:  # still within the block: who asks twice to stop loses nothing
            save()
        elif main:
            checkpoints.prune(run / "checkpoints", step, recipe.keep_checkpoints)
        weights = run / "weights"
        if main:
            with _averaged(ema, parameters), evaluating(task), atomic.folder(weights) as part:
                task.export(part)
                atomic.write_text(part / "README.md", card.weights_card(title, step, recipe))
    accelerator.wait_for_everyone()
    finished = step >= recipe.max_steps or validation.exhausted(run, recipe)
    return Outcome(step, finished, weights, sum(p.numel() for p in parameters), validation.best(run), stop.requested)


def _agreed(accelerator: Accelerator, stop: bool) -> bool:
    """Return whether any process wants to stop, so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return stop
    votes = accelerator.gather(torch.tensor([float(stop)], device=accelerator.device))
    return bool(votes.max() > 0)


@contextmanager
def evaluating(task: Task) -> Iterator[None]:
    """Put `task` into evaluation mode without gradients for the length of the block."""
    task.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        task.train()


def _seed(seed: int, rank: int, step: int, micro: int) -> np.random.Generator:
    rng = np.random.default_rng([seed, rank, step, micro])
    torch.manual_seed(int(rng.integers(2**63)))
    return rng


def _to(batch: Batch, device: torch.device) -> Batch:
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}


def _scaler(accelerator: Accelerator) -> dict[str, Any]:
    return dict(accelerator.scaler.state_dict()) if accelerator.scaler else {}


def _restore(
    task: Task,
    optimizer: torch.optim.Optimizer,
    ema: EMAModel | None,
    accelerator: Accelerator,
    saved: checkpoints.Checkpoint,
) -> None:
    with torch.no_grad():
        for name, tensor in [*task.trained(), *task.trained_buffers()]:
            tensor.copy_(saved.weights[name])
        if ema:
            for index, shadow in enumerate(ema.shadow_params):
                shadow.copy_(saved.ema[str(index)])
            ema.optimization_step = saved.extra["ema_step"]
    checkpoints.restore_optimizer(optimizer, saved.optimizer)
    if accelerator.scaler and saved.extra["scaler"]:
        accelerator.scaler.load_state_dict(saved.extra["scaler"])


@contextmanager
def _averaged(ema: EMAModel | None, parameters: list[torch.nn.Parameter]) -> Iterator[None]:
    if ema is None:
        yield
        return
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


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
