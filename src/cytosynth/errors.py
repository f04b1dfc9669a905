"""Errors that the user can fix: one line, no traceback, a meaningful exit code."""

import errno
import re

from safetensors import SafetensorError

OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|out of memory|(can't|annot) allocate memory|not enough memory|can't start new thread|"
    r"std::bad_alloc|could not create a (primitive|memory)|ALLOC_FAILED"
)
"""Parts of names and messages of errors by which torch and its libraries report that memory was refused."""


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether `error`, or its cause, reports that memory was refused."""
    while error is not None:
        if isinstance(error, MemoryError | SystemError):  # CPython's own: it forgot the MemoryError
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError | OSError | SafetensorError) and OUT_OF_MEMORY.search(
            f"{type(error).__name__}: {error}"
        ):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def of_the_machine(error: BaseException) -> bool:
    """Return whether `error` does not depend on the input: memory was refused, or a time limit was reached."""
    return isinstance(error, TimeoutError) or out_of_memory(error)


class UserError(Exception):
    """A mistake in the input or its use; the message names the file, the value and what would be right."""

    exit_code = 1


class UsageError(UserError):
    """The command line or a recipe asks for something that does not exist or does not fit."""

    exit_code = 2


class Incomplete(UserError):
    """The work is done, except for images that could not be used; they were listed."""

    exit_code = 4


class EnvironmentProblem(UserError):
    """The machine lacks something: a package, disk space, a reachable hub."""

    exit_code = 3


class FormatProblem(UserError):
    """An annotation file that does not follow its format; the message says where."""
