"""Actors of a Ray cluster that hold models, each in its own process; the work of a lost one is given to others.

The caller collects and writes the results, so that a kill leaves nothing incomplete, and only the caller's machine
needs the output folder.
"""

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Generic, Protocol, TypeVar

import torch

from ..errors import EnvironmentProblem, UserError
from ..io.plain import one_line
from ..io.progress import console

STORE = 256 << 20
"""Bytes of Ray's object store on this machine: a few images on their way."""
AHEAD = 2
"""Calls that a worker has at a time, so that it need not wait for the next."""
LOSSES = 3
"""Number of workers lost on one item before it is considered the cause, and lost before any is ready."""
ANSWER = 10
"""Seconds within which the head of a cluster answers."""
LOCAL = "local"

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Given = TypeVar("Given", contravariant=True)


class Worker(Protocol[Given, Outcome]):
    """The work of an actor with its models."""

    def about(self) -> Any:
        """Return the values that must be the same in every worker: the models and their digests."""
        ...

    def add(self, key: str, item: Given) -> list[tuple[str, Outcome]]:
        """Add `item` with its `key`; return the results that are finished now, of this item or of earlier ones."""
        ...

    def flush(self) -> list[tuple[str, Outcome]]:
        """Return the results of all items that were added."""
        ...


class Holder:
    """A worker in the process of an actor."""

    def __init__(self, build: Callable[[], Worker[Any, Any]], threads: int) -> None:
        """Compute with as many `threads` as the caller does: another number rounds otherwise, and Ray sets its own."""
        torch.set_num_threads(threads)
        self.build = build
        self.worker: Worker[Any, Any] | None = None

    def ready(self) -> Any:
        """Load the models; return what they are."""
        self.worker = self.build()
        return self.worker.about()

    def call(self, method: str, *arguments: Any) -> Any:
        """Return what `method` of the worker does."""
        return getattr(self.worker, method)(*arguments)


@dataclass
class _Actor:
    """An actor, whether it has loaded its models, the items that it has, and its calls on their way."""

    handle: Any
    ready: bool = False
    items: dict[str, Any] = field(default_factory=dict)
    calls: int = 0


class Pool(Generic[Item, Outcome]):
    """The workers of a run; use it as a context."""

    def __init__(
        self, address: str, build: Callable[[], Worker[Item, Outcome]], device: str, ahead: int = AHEAD
    ) -> None:
        """Start as many workers as the cluster has room for.

        Args:
            address: 'local' for a cluster on this machine that ends with the run, else that of one that is there.
            build: makes a worker in its process; it is sent there.
            device: a worker takes a GPU where this is one of CUDA.
            ahead: calls that a worker has at a time.

        Raises EnvironmentProblem if there is no Ray, no such cluster, or no room in it.
        """
        self.ray, self.build = _connected(address), build
        self.threads, self.ahead = torch.get_num_threads(), ahead
        self.needs = {"num_cpus": self.threads, "num_gpus": int(device.startswith("cuda"))}
        self.actors: list[_Actor] = []
        self.calls: dict[Any, tuple[_Actor, str]] = {}
        self.losses: dict[str, int] = {}
        self.said: Any = None

    def __enter__(self) -> "Pool[Item, Outcome]":
        """Wait for the first worker; the others join as they are ready."""
        room = self._room()
        if not room:
            self.close()
            raise EnvironmentProblem(
                f"--ray: no node has {self.threads} free CPU cores" + (" and a GPU" if self.needs["num_gpus"] else "")
            )
        try:
            for _ in range(room):
                self._begin()
            while self.said is None:
                self._next()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the workers."""
        self.close()

    def close(self) -> None:
        """End the workers, and the cluster if it is this process's own."""
        for actor in self.actors:
            self.ray.kill(actor.handle)
        self.actors = []
        self.ray.shutdown()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return the result of `method` of any one worker; raise the UserError that it raises."""
        while True:
            actor = next((one for one in self.actors if one.ready), None)
            if actor is None:
                self._next()
                continue
            try:
                return self.ray.get(actor.handle.call.remote(method, *arguments))
            except self.ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except self.ray.exceptions.RayError:
                self._lost(actor, deque())

    def each(self, todo: Iterable[tuple[str, Item]], method: str = "add") -> Iterator[tuple[str, Outcome]]:
        """Yield the outcome of each item of `todo`, which come with the keys that they are called by, in any order.

        `method` of the workers takes the items, as `Worker.add` does. What a lost worker had goes to others. Raises
        the UserError that a worker raises, EnvironmentProblem for an item with which worker after worker is lost.
        """
        waiting, rest = deque[tuple[str, Item]](), iter(todo)
        while True:
            for actor in [one for one in self.actors if one.ready]:
                while actor.calls < self.ahead:
                    one = waiting.popleft() if waiting else next(rest, None)
                    if one is None:
                        break
                    actor.items[one[0]] = one[1]
                    self._call(actor, method, *one)
                if actor.items and not actor.calls:
                    self._call(actor, "flush")
            if not waiting and not any(one.items for one in self.actors):
                one = next(rest, None)
                if one is None:
                    return
                waiting.append(one)
            yield from self._next(waiting)

    def _next(self, waiting: deque[tuple[str, Item]] | None = None) -> list[tuple[str, Outcome]]:
        """Wait for a call to end; return what was finished by it. Items of a lost worker go to `waiting`."""
        (done,), _ = self.ray.wait(list(self.calls), num_returns=1)
        actor, what = self.calls.pop(done)
        actor.calls -= what != "ready"
        try:
            found = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except self.ray.exceptions.RayError:  # the actor, its node, or on that what it had finished
            self._lost(actor, deque() if waiting is None else waiting)
            return []
        if what == "ready":
            if self.said not in (None, found):
                raise UserError("--ray: the nodes have different models; install and copy the same on all")
            self.said, actor.ready = found, True
            return []
        finished = [(key, outcome) for key, outcome in found if key in actor.items]
        for key, _ in finished:
            del actor.items[key]
        return finished

    def _call(self, actor: _Actor, method: str, *arguments: Any) -> None:
        actor.calls += 1
        self.calls[actor.handle.call.remote(method, *arguments)] = (actor, method)

    def _begin(self) -> None:
        actor = _Actor(self.ray.remote(Holder).options(**self.needs).remote(self.build, self.threads))
        self.actors.append(actor)
        self.calls[actor.handle.ready.remote()] = (actor, "ready")

    def _lost(self, actor: _Actor, waiting: deque[tuple[str, Item]]) -> None:
        """Give the items of a lost `actor` back, and begin another in its place."""
        self.actors.remove(actor)
        self.ray.kill(actor.handle)
        self.calls = {call: one for call, one in self.calls.items() if one[0] is not actor}
        waiting.extend(actor.items.items())
        for key in actor.items or ([] if actor.ready else ["the first"]):
            self.losses[key] = self.losses.get(key, 0) + 1
            if self.losses[key] >= LOSSES:
                raise EnvironmentProblem(
                    f"--ray: {LOSSES} workers died while making {key}; do the nodes have enough memory?"
                )
        console.print("a worker was lost; others take over its work", soft_wrap=True)
        self._begin()

    def _room(self) -> int:
        """Return how many workers the nodes of the cluster hold."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        rooms = [int(node.get("CPU", 0) // self.needs["num_cpus"]) for node in nodes]
        if self.needs["num_gpus"]:
            rooms = [min(room, int(node.get("GPU", 0))) for room, node in zip(rooms, nodes, strict=True)]
        return sum(rooms)


def _connected(address: str) -> ModuleType:
    """Return Ray, connected to the cluster at `address`; nothing is reported anywhere, and no dashboard is started."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError:
        raise EnvironmentProblem("--ray needs Ray: pip install 'cytosynth[ray]'") from None
    _answers(address)
    own: dict[str, Any] = {"address": address}
    if address == LOCAL:
        own |= {"object_store_memory": STORE, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    stop = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**own, log_to_driver=False, configure_logging=False)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stop)  # Ray sets one of its own
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise EnvironmentProblem(f"--ray {address[:80]}: no cluster found there ({one_line(error)[:120]})") from None
    return ray  # type: ignore[no-any-return]


def _answers(address: str) -> None:
    """Raise EnvironmentProblem if nothing answers at `address`, host:port: Ray would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
        except (OSError, OverflowError) as error:
            raise EnvironmentProblem(
                f"--ray {address[:80]}: no cluster found there ({one_line(error)[:120]})"
            ) from None


def _cause(error: Any) -> BaseException:
    """Return what a worker raised, if the user can fix it; else `error` itself."""
    return error.cause if isinstance(error.cause, UserError) else error
