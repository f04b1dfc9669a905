"""Work in the background: encoding and writing finished images while the next one is computed."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Background(Generic[Item]):
    """A thread that does one thing with each item it is given, in their order; use it as a context.

    The end of the block waits for it, also if an error ends the block: finished items are not lost. An exception of the
    work is raised in the caller, by the next `put` or the end of the block, and later items are not processed.
    """

    def __init__(self, work: Callable[[Item], None], waiting: int = 4) -> None:
        """Do `work` with each item; `put` waits while there are `waiting` of them."""
        self.work = work
        self.items: queue.Queue[Item | None] = queue.Queue(waiting)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Background[Item]":
        """Begin."""
        self.thread.start()
        return self

    def put(self, item: Item) -> None:
        """Add `item`."""
        if self.error is not None:
            raise self.error
        self.items.put(item)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait until everything is done."""
        self.items.put(None)
        self.thread.join()
        if self.error is not None and error is None:
            raise self.error

    def _run(self) -> None:
        while (item := self.items.get()) is not None:
            if self.error is None:
                try:
                    self.work(item)
                except BaseException as error:  # noqa: BLE001 - the caller gets it
                    self.error = error
