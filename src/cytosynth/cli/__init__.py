"""The command line: one thin file per verb."""

import sys
import traceback

import typer

from ..errors import UserError

app = typer.Typer(
    name="cytosynth",
    help="Annotated synthetic cervical cytology for training abnormal-cell detectors. Not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
debugging = False


@app.callback()
def options(debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error.")) -> None:
    """Take the options that stand before the verb."""
    global debugging
    debugging = debug


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and its exit code."""
    from . import data, detect, evaluate, experiment, fidelity, figures, info, select, synthesize, train  # noqa: F401

    try:
        app()
    except UserError as error:
        if debugging:
            traceback.print_exc()
        print(f"cytosynth: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if debugging:
            traceback.print_exc()
        print(f"cytosynth: {error.filename or 'disk'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(3)
    except KeyboardInterrupt:
        print("cytosynth: stopped; the same command continues", file=sys.stderr)
        sys.exit(130)
