"""Errors that are the user's to mend: one line, no traceback, a meaningful exit code."""

import re

OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|out of memory|can't allocate memory|not enough memory|can't start new thread|std::bad_alloc|"
    r"could not create a (primitive|memory)|ALLOC_FAILED"
)
"""In the name or the message of a RuntimeError by which torch, and what it calls, say that memory was refused."""


def of_the_machine(error: BaseException) -> bool:
    """Return whether `error` says nothing of the input: memory that was refused, or a time that is over."""
    if isinstance(error, MemoryError | TimeoutError | SystemError):  # CPython's own: it forgot the MemoryError
        return True
    return isinstance(error, RuntimeError) and bool(OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"))


class UserError(Exception):
    """A mistake in the input or its use; the message names the file, the value and what would be right."""

    exit_code = 1


class UsageError(UserError):
    """The command line or a recipe asks for something that does not exist or does not fit."""

    exit_code = 2


class Incomplete(UserError):
    """The work is done, but for images that could not be used; they were named."""

    exit_code = 4


class EnvironmentProblem(UserError):
    """The machine lacks something: a package, disk space, a reachable hub."""

    exit_code = 3
