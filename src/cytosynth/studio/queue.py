"""One queue for a device: one thing at a time runs there, clicks go before long work, and each can be cancelled."""

import heapq
import itertools
import secrets
import threading
from collections.abc import Callable
from typing import Any, Literal

from .. import devices
from ..errors import UserError, out_of_memory
from ..io.plain import one_line

State = Literal["waiting", "running", "done", "failed", "cancelled"]
CLICK, BATCH, LONG = 0, 1, 2
"""Priorities: a task that a user waits for, one of many, and one that takes minutes."""
KEPT = 500
"""Finished tasks that can still be asked about."""


class Cancelled(Exception):
    """The task was cancelled while it ran."""


class Task:
    """A piece of work for the device.

    Attributes:
        id: what it is asked about by.
        title: in words, for the page.
        state: where it is.
        result: what it returned, once done.
        error: why it failed, in one line.
    """

    def __init__(self, title: str, work: Callable[["Task"], Any]) -> None:
        """Do `work`, which gets the task and calls `check` often enough."""
        self.id, self.title, self.work = secrets.token_hex(8), title, work
        self.state: State = "waiting"
        self.result: Any = None
        self.error = ""
        self.finished = threading.Event()
        self._cancelled = threading.Event()

    def check(self) -> None:
        """Raise Cancelled when the task was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled

    def cancel(self) -> None:
        """Stop at the next `check`; a task that waits never starts."""
        self._cancelled.set()
        if self.state == "waiting":
            self._end("cancelled")

    def run(self) -> None:
        """Do the work, unless cancelled, and keep its result or its error; what is no user's error is raised too."""
        if self._cancelled.is_set():
            return self._end("cancelled")
        self.state = "running"
        state: State = "failed"
        self.error = "an error in the program; see the terminal"
        try:
            self.result = self.work(self)
            self.error, state = "", "done"
        except Cancelled:
            self.error, state = "", "cancelled"
        except UserError as error:
            self.error = one_line(error)
        except (RuntimeError, MemoryError, OSError) as error:
            self.error = "not enough memory" if out_of_memory(error) else one_line(f"{type(error).__name__}: {error}")
        finally:
            self._end(state)
        return None

    def said(self) -> dict[str, Any]:
        """Return the task as the page reads it."""
        return {"id": self.id, "title": self.title, "state": self.state, "result": self.result, "error": self.error}

    def _end(self, state: State) -> None:
        self.state = state
        self.finished.set()


class DeviceQueue:
    """Runs tasks one after another in a thread of its own: first by priority, then in the order they came."""

    def __init__(self, threads: int | None = None) -> None:
        """Start empty; tasks compute with as many `threads`, None: PyTorch's number."""
        self._threads = threads
        self._waiting: list[tuple[int, int, Task]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._tasks: dict[str, Task] = {}
        self._closed = False
        self._start()

    def add(self, title: str, work: Callable[[Task], Any], priority: int = CLICK) -> Task:
        """Take in a task and return it."""
        task = Task(title, work)
        with self._changed:
            self._tasks[task.id] = task
            ended = [name for name, one in self._tasks.items() if one.finished.is_set()]
            for name in ended[: max(0, len(ended) - KEPT)]:
                del self._tasks[name]
            heapq.heappush(self._waiting, (priority, next(self._number), task))
            self._changed.notify()
        return task

    def task(self, name: str) -> Task:
        """Return the task of that id; raise UserError if there is none."""
        found = self._tasks.get(name)
        if found is None:
            raise UserError(f"no task {name[:40]!r}; it may have finished long ago")
        return found

    def waiting(self) -> int:
        """Return how many tasks are not finished."""
        return sum(not task.finished.is_set() for task in list(self._tasks.values()))

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._changed:
            self._closed = True
            for task in self._tasks.values():
                task.cancel()
            self._changed.notify()
        self._thread.join(timeout=30)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="device", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            with devices.threads(self._threads):
                self._serve()
        finally:
            if not self._closed:  # an error in the program ended this thread: the next task gets another
                self._start()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                _, _, task = heapq.heappop(self._waiting)
            if not task.finished.is_set():
                task.run()
