"""The best weights are kept beside the last, an early stop is one, and neither changes what is trained."""

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cytosynth.errors import EnvironmentProblem, UsageError, UserError
from cytosynth.io import records
from cytosynth.training import checkpoint, trainer
from cytosynth.training.loop import Outcome, train
from cytosynth.training.recipe import Recipe
from cytosynth.training.task import Batch, Losses, Task
from cytosynth.training.validation import Best

SCORES = [5.0, 3.0, 4.0, 3.0, 2.0, 6.0, 7.0, 8.0]


class Line(Task):
    """Fits a line; its scores are given, one for each call, by the step that the weights tell."""

    def __init__(self, scores: list[float] | None) -> None:
        super().__init__()
        self.scores = scores
        self.steps = torch.nn.Parameter(torch.zeros(1))
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        return {"x": torch.as_tensor(rng.normal(size=size))}

    def forward(self, batch: Batch) -> Losses:
        return {"loss": ((self.slope + torch.randn(1)) * batch["x"]).square().mean() - self.steps.sum()}

    def groups(self) -> list[tuple[list[torch.nn.Parameter], float]]:
        return [([self.slope], 1.0), ([self.steps], 10.0)]

    def score(self) -> float | None:
        torch.randn(5)
        if self.scores is None:
            return None
        return self.scores[round(float(self.steps.detach()) * 10) - 1]

    def export(self, folder: Path) -> None:
        save_file({"slope": self.slope.detach(), "steps": self.steps.detach()}, folder / "w.safetensors")


def recipe(**changes: object) -> Recipe:
    plain = {"max_steps": 8, "learning_rate": 0.01, "optimizer": "sgd", "weight_decay": 0.0, "max_grad_norm": 1e9,
             "checkpoint_every": 3, "log_every": 1, "validate_every": 1}  # fmt: skip
    return Recipe.model_validate(plain | changes)


@pytest.fixture(autouse=True)
def no_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of the counter are then exactly one learning rate, so that the weights tell the step."""
    plain = torch.optim.SGD

    def build(groups: list, lr: float, **_: object) -> torch.optim.SGD:
        return plain(groups, lr=lr)

    monkeypatch.setattr(torch.optim, "SGD", build)


def run(folder: Path, scores: list[float] | None = SCORES, **changes: object) -> Outcome:
    return train(lambda: Line(scores), recipe(**changes), folder, title="line")


def test_who_asks_again_to_stop_while_it_saves_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = checkpoint.save

    def asked(*arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        save(*arguments)  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "save", asked)
    outcome = run(tmp_path, validate_every=0, max_steps=2)
    assert (outcome.step, outcome.stopped) == (2, True)
    assert [path.name for path in checkpoint.found(tmp_path / "checkpoints")] == ["step-00000002"]


def test_the_best_is_kept_with_the_last(tmp_path: Path) -> None:
    outcome = run(tmp_path)
    assert (outcome.step, outcome.finished, outcome.parameters) == (8, True, 2)
    assert outcome.best is not None
    assert (outcome.best.step, outcome.best.score) == (5, 2.0)
    assert outcome.selected == tmp_path / "best"
    assert outcome.selected_step == 5
    assert load_file(tmp_path / "best/w.safetensors")["steps"].item() == pytest.approx(0.5)
    assert load_file(tmp_path / "weights/w.safetensors")["steps"].item() == pytest.approx(0.8)
    lines = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == SCORES
    assert "after 5 steps" in (tmp_path / "best/README.md").read_text()


def test_scoring_changes_nothing_of_the_training(tmp_path: Path) -> None:
    with_scores, without = run(tmp_path / "a"), run(tmp_path / "b", validate_every=0)
    assert without.best is None
    assert without.selected == without.weights
    one, other = (load_file(outcome.weights / "w.safetensors") for outcome in (with_scores, without))
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not (tmp_path / "b/validation.jsonl").exists()


def test_a_factor_on_the_learning_rate(tmp_path: Path) -> None:
    run(tmp_path, max_steps=1)
    assert load_file(tmp_path / "weights/w.safetensors")["steps"].item() == pytest.approx(10 * 0.01)


def test_patience_ends_the_run_and_the_same_command_does_not_go_on(tmp_path: Path) -> None:
    outcome = run(tmp_path, patience=2)
    assert (outcome.step, outcome.finished) == (4, True), "3.0 at step 2, not bettered at 3 and 4"
    assert outcome.selected_step == 2
    again = run(tmp_path, patience=2)
    assert (again.step, again.finished) == (4, True)


@pytest.mark.promise("Hostile or broken input")
def test_a_damaged_line_of_a_run_is_dropped_and_no_other(tmp_path: Path) -> None:
    run(tmp_path / "whole", patience=6)
    names = ("stats.jsonl", "timing.jsonl", "validation.jsonl")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    for name in names:
        lines = (tmp_path / "run" / name).read_bytes()
        bad = b'{"step": 1}}\n\xff\xfe}\n\0\0}\n[]\n{"stap": 1}\n{"step": "1"}\n{"step": NaN}\n{"step": 9, "sco'
        (tmp_path / "run" / name).write_bytes(bad[:-3] + b"\n" + lines + bad)
    assert run(tmp_path / "run", patience=6) == run(tmp_path / "whole", patience=6)._replace(
        weights=tmp_path / "run/weights", best=Best(5, 2.0, tmp_path / "run/best")
    )
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    (tmp_path / "run/timing.jsonl").write_text(
        '{"seconds": 2}\n{"seconds": NaN}\n{"seconds": 1.5}\n{"seconds": []}\n{}'
    )
    assert records.seconds(tmp_path / "run") == [1.5, 2.0]


@pytest.mark.parametrize(
    "said", ['{"step": 1, "sco', "[]", "{}", '{"step": Infinity, "score": 1}', '{"step": 1}', "\xff"]
)
@pytest.mark.promise("Hostile or broken input")
def test_a_damaged_best_ends_in_a_line_that_says_what_to_do(said: str, tmp_path: Path) -> None:
    run(tmp_path, max_steps=3)
    (tmp_path / "best/best.json").write_bytes(said.encode("latin-1"))
    with pytest.raises(UserError, match=r"best/best.json: not a step and its score; delete .*/best; the best from"):
        run(tmp_path, max_steps=6)
    shutil.rmtree(tmp_path / "best")
    assert run(tmp_path, max_steps=6).selected_step == 5


@pytest.mark.parametrize("moment", ["export", "line", "checkpoint"])
def test_killed_while_scoring_and_continued_ends_the_same(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "once", patience=6)
    with monkeypatch.context() as patch:
        kill_at(patch, moment)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "twice", patience=6)
    run(tmp_path / "twice", patience=6)
    for name in ("best/w.safetensors", "best/best.json", "weights/w.safetensors", "validation.jsonl", "stats.jsonl"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes(), name


def kill_at(patch: pytest.MonkeyPatch, moment: str) -> None:
    """Die at step 5, before its best is exported, before its score is written, or before the next checkpoint."""

    def dying(original: Callable, when: Callable[..., bool]) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            if when(*arguments):
                raise KeyboardInterrupt
            return original(*arguments, **named)

        return call

    if moment == "export":
        patch.setattr(Line, "export", dying(Line.export, lambda self, folder: self.steps.item() > 0.45))
    elif moment == "line":
        from cytosynth.training import validation

        patch.setattr(validation.json, "dumps", dying(json.dumps, lambda value, *_: value == {"step": 5, "score": 2.0}))
    else:
        patch.setattr(trainer.checkpoints, "save", dying(checkpoint.save, lambda folder, saved, keep: saved.step == 6))


def test_tensorboard_has_what_stats_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("held-out score")] == SCORES
    stats = [json.loads(line)["loss"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(stats)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(EnvironmentProblem, match="TensorBoard is not installed; pip install"):
        run(tmp_path / "without", tensorboard=True)


def test_nothing_held_out_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="validate_every=1: there is no held-out data"):
        run(tmp_path, scores=None)
