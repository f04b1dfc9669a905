"""The command line: one thin file per command."""

import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from .. import __version__
from ..errors import Incomplete, UserError, out_of_memory
from ..io import wording
from ..io.plain import one_line

if TYPE_CHECKING:
    from ..annotations import DataSet

app = typer.Typer(
    name="cytosynth",
    help="Annotated synthetic cervical cytology for training abnormal-cell detectors. Not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
debugging = False
for _switch in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ[_switch] = "1"  # what is looked up at a hub is looked up without telling who looks
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
STOPPED = 130


def _version(asked: bool) -> None:
    if asked:
        print(f"cytosynth {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Take the options given before the command."""
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
            benchmark,
            data,
            detect,
            distill,
            doctor,
            evaluate,
            experiment,
            fidelity,
            info,
            merge,
            mix,
            paste,
            quiz,
            robustness,
            select,
            slide,
            steps,
            studio,
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
            _end("a worker process died, probably out of memory; use fewer --workers; the same command continues", 3)
        if out_of_memory(error):
            _end("not enough memory; use smaller images or batches; the same command continues", 3)
        if isinstance(error, OSError):
            said = f"{error.filename or 'disk'}: {error.strerror or error}"
            if error.errno in FULL:
                _end(f"{said}; what was written is intact; free some space, then the same command continues", 1)
            _end(said, 3)
        if isinstance(error, ImportError):
            _end(f"{error}; a package is missing or damaged, or there is not enough memory to load it", 3)
        raise
    except KeyboardInterrupt:
        _stopped()
        sys.exit(STOPPED)


def there(path: Path) -> Path:
    """Return `path`; raise UserError if it does not exist, before libraries are loaded, which takes seconds."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return path


def there_if(path: Path | None) -> Path | None:
    """Return `path` if one is given; raise UserError if it does not exist."""
    return path and there(path)


def all_there(paths: list[Path] | None) -> list[Path]:
    """Return `paths`; raise UserError if one does not exist."""
    return [there(path) for path in paths or []]


def _stopped() -> None:
    print("cytosynth: stopped; the same command continues", file=sys.stderr)


def _end(message: str, code: int) -> NoReturn:
    if debugging:
        traceback.print_exc()
    print(f"cytosynth: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def finish(data: "DataSet", out: Path, where: str, more: Iterable[str] = ()) -> None:
    """Print `more` lines and what was written to `out`; raise Incomplete for skipped images, which `where` lists."""
    cells = sum(len(image.cells) for image in data.images)
    for line in more:
        print(f"{out}: {one_line(line)}")
    print(f"{out}: {wording.amount(len(data.images), 'image')}, {wording.amount(cells, 'cell')}; see {where}")
    skipped = data.info.get("skipped")
    if skipped:
        some = "image was" if len(skipped) == 1 else "images were"
        raise Incomplete(f"finished, but {len(skipped)} {some} skipped ({skipped[0]}); {out / where} lists them")
