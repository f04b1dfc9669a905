"""Losses and scores for TensorBoard, if the recipe enables it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from ..errors import EnvironmentProblem
from .recipe import Recipe

FOLDER = "tensorboard"
Show = Callable[[int, Mapping[str, float]], None]
"""Takes a step and its values by name."""


@contextmanager
def opened(recipe: Recipe, run: Path, step: int, main: bool) -> Iterator[Show]:
    """Yield a writer of values to `run`/tensorboard; entries after `step` are dropped.

    Raises EnvironmentProblem if TensorBoard is asked for and not installed.
    """
    if not recipe.tensorboard or not main:
        yield lambda _step, _values: None
        return
    try:
        from tensorboard.summary.writer import event_file_writer
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise EnvironmentProblem(
            "tensorboard=true: TensorBoard is not installed; pip install 'cytosynth[tensorboard]'"
        ) from None
    # Its files are named after the host, which is nobody's.
    event_file_writer.socket = SimpleNamespace(gethostname=lambda: "cytosynth")
    with SummaryWriter(str(run / FOLDER), purge_step=step) as writer:

        def show(at: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, at)

        yield show
