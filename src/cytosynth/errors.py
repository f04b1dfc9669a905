"""Errors that are the user's to mend: one line, no traceback, a meaningful exit code."""


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
