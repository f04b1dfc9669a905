"""Work that goes on beside the caller's: encoding and writing what is finished while the next is computed."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Background(Generic[Item]):
    """A thread that does one thing with each item it is given, in their order; use it as a context.

    The end of the block waits for it, also where an error ends the block: what is finished is not lost. What the work
    raises is raised in the caller, by the next `put` or the end of the block, and items after it are left alone.
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
        """Take in `item`."""
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
