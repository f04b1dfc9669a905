"""The command line: one thin file per verb."""

import errno
import io
import signal
import sys
import threading
import traceback
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, NoReturn

import typer

from ..errors import Incomplete, UserError, out_of_memory
from ..io.plain import one_line

app = typer.Typer(
    name="cytosynth",
    help="Annotated synthetic cervical cytology for training abnormal-cell detectors. Not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
debugging = False
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
STOPPED = 130


@app.callback()
def options(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    """Take the options that stand before the verb."""
    global debugging
    debugging = debug


def main() -> None:
    """Run the command line; a mistake ends in one line on standard error and its exit code.

    0: done; 1: the data are at fault, or their disk is full; 2: the command is; 3: the machine lacks something;
    4: done, but images were skipped; 130: stopped.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # paths need not be UTF-8
    try:
        from . import (  # noqa: F401
            data,
            detect,
            evaluate,
            experiment,
            fidelity,
            figures,
            info,
            select,
            synthesize,
            tiles,
            train,
        )

        app()
    except SystemExit as end:
        if end.code == STOPPED:
            _stopped()
        raise
    except UserError as error:
        _end(str(error), error.exit_code)
    except Exception as error:
        if isinstance(error, BrokenExecutor):
            _end("a worker's process died, as it does without memory; fewer --workers; the same command continues", 3)
        if out_of_memory(error):
            _end("not enough memory; smaller images or batches take less; the same command continues", 3)
        if isinstance(error, OSError):
            said = f"{error.filename or 'disk'}: {error.strerror or error}"
            if error.errno in FULL:
                _end(f"{said}; what was there is intact; make room, then the same command continues", 1)
            _end(said, 3)
        if isinstance(error, ImportError):
            _end(f"{error}; a package is missing or damaged, or there is not enough memory for it", 3)
        raise
    except KeyboardInterrupt:
        _stopped()
        sys.exit(STOPPED)


def there(path: Path) -> Path:
    """Return `path`, to be read; raise UserError where nothing is, before libraries are loaded, which takes seconds."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return path


def _stopped() -> None:
    print("cytosynth: stopped; the same command continues", file=sys.stderr)


def _end(message: str, code: int) -> NoReturn:
    if debugging:
        traceback.print_exc()
    print(f"cytosynth: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def finish(info: dict[str, Any], where: str) -> None:
    """Raise Incomplete when images were skipped, as the `info` of the data set says that was made; see `where`."""
    skipped = info.get("skipped")
    if skipped:
        some = "image was" if len(skipped) == 1 else "images were"
        raise Incomplete(f"finished, but {len(skipped)} {some} skipped ({skipped[0]}); {where} names all")
