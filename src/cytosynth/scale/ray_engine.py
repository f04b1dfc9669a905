"""`synthesize`, `edit` and `detect` on the workers of a Ray cluster."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import Cell
from ..data.image_files import Pixels
from ..detection import model as detectors
from ..detection.finder import Search
from ..devices import available
from ..errors import UserError
from ..synthesis import models as loading
from ..synthesis.jobs import Job
from ..synthesis.making import Failed, Made, Making, Room, Surveying, Unmade
from ..synthesis.models import Models
from ..synthesis.settings import PipelineSettings
from .pool import Pool


@dataclass(frozen=True)
class Problem:
    """The reason why an image cannot be made, from a worker."""

    error: UserError


ENCODING = 4
"""Images that may wait to be encoded while the next are made."""
Result = tuple[str, Made | Room | Problem]


class PipelineWorker:
    """The models of a run, in a process of its own. Its images are encoded while the next ones are made."""

    def __init__(self, models: Models) -> None:
        """Load `models`."""
        self.pipeline = loading.load(models)
        self.making: Making | None = None
        self.surveying: Surveying | None = None
        self.encoder = ThreadPoolExecutor(1)
        self.encoding: deque[Future[Result]] = deque()

    def about(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return name and weights' hash of each model by role, and the categories of the synthesizer."""
        return self.pipeline.models(), tuple(self.pipeline.categories)

    def settle(self, settings: PipelineSettings) -> PipelineSettings:
        """As `Engine.settle`."""
        return self.pipeline.settle(settings)

    def check(self, categories: list[str]) -> None:
        """As `Engine.check`."""
        self.pipeline.check(categories)

    def add(self, key: str, item: tuple[Job, PipelineSettings]) -> list[Result]:
        """Take in the job `key`; return the images that are finished now."""
        job, settings = item
        if self.making is None:
            self.making = Making(self.pipeline, settings)
        self._encode(self.making.add(job))
        ready = max(sum(one.done() for one in self.encoding), len(self.encoding) - ENCODING)
        return [self.encoding.popleft().result() for _ in range(ready)]

    def room(self, key: str, item: tuple[Job, PipelineSettings]) -> list[Result]:
        """Take in the job `key`; return how many cells can be edited of the images of which that is known now."""
        job, settings = item
        if self.surveying is None:
            self.surveying = Surveying(self.pipeline, settings)
        return list(map(_outcome, self.surveying.add(job)))

    def flush(self) -> list[Result]:
        """Return the remaining results of all jobs that were added."""
        rooms = self.surveying.flush() if self.surveying else []
        if self.making is not None:
            self._encode(self.making.flush())
        made = [self.encoding.popleft().result() for _ in range(len(self.encoding))]
        return [*map(_outcome, rooms), *made]

    def _encode(self, finished: Iterable[Made | Unmade]) -> None:
        """Encode what is `finished` in another thread, one after the other."""
        self.encoding.extend(self.encoder.submit(_outcome, one) for one in finished)


def _outcome(one: Made | Room | Unmade) -> Result:
    """Return the results for the driver, which writes them: encoded images."""
    if isinstance(one, Unmade):
        return one.job.file_name, Problem(one.error)
    return one.file_name, one.as_file() if isinstance(one, Made) else one


class RayEngine:
    """The `Engine` of a run whose models are in the workers of a cluster; this process writes what they make."""

    def __init__(self, pool: Pool[Any, Any], models: Models) -> None:
        """Use the workers of `pool`, which hold `models`."""
        self.pool = pool
        self.origin = "synthetic" if models.generates else "real-to-synthetic"
        self.categories: tuple[str, ...] = pool.said[1]

    def models(self) -> dict[str, str]:
        """As `Engine.models`."""
        return dict(self.pool.said[0])

    def settle(self, settings: PipelineSettings) -> PipelineSettings:
        """As `Engine.settle`."""
        settled = self.pool.ask("settle", settings)
        assert isinstance(settled, PipelineSettings)
        return settled

    def check(self, categories: Collection[str]) -> None:
        """As `Engine.check`."""
        self.pool.ask("check", list(categories))

    def make(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Made]:
        """As `Engine.make`, in any order."""
        yield from self._each("add", jobs, settings, failed)

    def rooms(self, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Room]:
        """As `Engine.rooms`, in any order."""
        yield from self._each("room", jobs, settings, failed)

    def _each(self, method: str, jobs: Iterable[Job], settings: PipelineSettings, failed: Failed) -> Iterator[Any]:
        known: dict[str, Job] = {}

        def todo() -> Iterator[tuple[str, tuple[Job, PipelineSettings]]]:
            for job in jobs:
                try:
                    sent = (
                        job if job.normal is None else replace(job, normal=partial(np.array, job.normal()), path=None)
                    )
                except UserError as error:
                    failed(job, error)
                    continue
                known[job.file_name] = job
                yield job.file_name, (sent, settings)

        for key, outcome in self.pool.each(todo(), method):
            job = known.pop(key)
            if isinstance(outcome, Problem):
                failed(job, outcome.error)
            else:
                yield outcome


@contextmanager
def loading_at(address: str) -> Iterator[Callable[[Models], RayEngine]]:
    """Yield what loads models into the workers of the cluster at `address`, which end with the block.

    Folders of models, and `data_root`, must be at the same paths on all nodes; images of the user's are sent there.
    """
    with ExitStack() as stack:

        def load(models: Models) -> RayEngine:
            there = _absolute(models)
            return RayEngine(stack.enter_context(Pool(address, partial(PipelineWorker, there), there.device)), there)

        yield load


def _absolute(models: Models) -> Models:
    """Return `models` with absolute paths: the workers have another working folder."""

    def there(name: str) -> str:
        return str(Path(name).resolve()) if Path(name).exists() else name

    return replace(
        models, foundation=there(models.foundation), cell=there(models.cell), gate=there(models.gate),
        normal=there(models.normal), detector=models.detector and there(models.detector),
        data_root=models.data_root.resolve(), decoder=models.decoder and there(models.decoder),
    )  # fmt: skip


class DetectorWorker:
    """A detector, in a process of its own."""

    def __init__(self, folder: Path, device: str) -> None:
        """Load the detector in `folder`."""
        self.detector = detectors.load(folder)
        self.detector.network.to(available(device))

    def about(self) -> tuple[str, tuple[str, ...]]:
        """Return the digest of its weights, and what it finds."""
        return self.detector.digest, self.detector.config.categories

    def add(self, key: str, item: tuple[Pixels, float]) -> list[tuple[str, list[Cell]]]:
        """Return the cells of the image `key`."""
        return [(key, self.detector.find(*item))]

    def flush(self) -> list[tuple[str, list[Cell]]]:
        """Return nothing: no image waits."""
        return []


class RayFinder:
    """The `Finder` of a run whose detector is in the workers of a cluster."""

    def __init__(self, pool: Pool[Any, Any]) -> None:
        """Use the workers of `pool`."""
        self.pool = pool
        self.digest: str = pool.said[0]
        self.categories: tuple[str, ...] = pool.said[1]

    def each(self, searches: Iterable[Search], threshold: float) -> Iterator[tuple[Search, list[Cell]]]:
        """As `Finder.each`."""
        known: dict[str, Search] = {}

        def todo() -> Iterator[tuple[str, tuple[Pixels, float]]]:
            for search in searches:
                known[search.name] = search
                yield search.name, (search.seen, threshold)

        for key, cells in self.pool.each(todo()):
            yield known.pop(key), cells


def detector_pool(address: str, folder: Path, device: str) -> Pool[Any, Any]:
    """Return the workers, on the cluster at `address`, that hold the detector in `folder`."""
    return Pool(address, partial(DetectorWorker, folder.resolve(), device), device)
