"""`cytosynth studio`."""

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from ..config import override
from ..errors import EnvironmentProblem, UsageError
from ..synthesis.settings import PipelineSettings, check
from . import app, there
from .options import DataRoot, Device, Foundation, Model, Normal, Settings

PASSWORD = "CYTOSYNTH_STUDIO_PASSWORD"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST = 8
"""Characters of a password."""


@app.command()
def studio(
    opened: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER|SLIDE]...", help="Folders and slides that the page may open. \\[default: none]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--output", help="Folder for saved data sets and unfinished work.")] = Path(
        "studio"
    ),
    host: Annotated[
        str, typer.Option(help=f"Address to listen on; other machines can connect only if ${PASSWORD} is set.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8765,
    foundation: Foundation = "bundled",
    normal: Normal = "bundled",
    cell: Model = "bundled",
    detector: Model = "bundled",
    gate: Annotated[
        str, typer.Option(help="Quality gate that comments on edits: as --gate of `synthesize`, or 'none'.")
    ] = "nucleus",
    data_root: DataRoot = Path(),
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Open a page in your browser to edit cells by clicking, inspect and correct data sets, and make quizzes."""
    from importlib.util import find_spec

    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise EnvironmentProblem("the studio needs the extra: pip install 'cytosynth[studio]'")
    key = _password(host)
    chosen = override(PipelineSettings(), ["cell.batch=1", *(settings or [])])
    check(chosen)
    if chosen.cell.paste != "box":
        raise UsageError("--set cell.paste=patch: the studio supports only cell.paste=box; use `cytosynth edit`")
    if chosen.compiled:
        raise UsageError("--set compiled=true: the studio compiles no networks; use `cytosynth edit`")
    if chosen.engine == "openvino":
        raise UsageError("--set engine=openvino: the studio computes with PyTorch; use `cytosynth edit`")
    paths = [there(path) for path in opened or []]
    import uvicorn

    from ..studio.models import Models
    from ..studio.server import Studio

    names = {"foundation": foundation, "normal": normal, "cell": cell, "detector": detector, "gate": gate}
    room = Studio(paths, out, Models(names, device, chosen, data_root), key, host in LOOPBACK)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise UsageError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from None
        application = room.start()
        where = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
        print(f"Open {where}{'' if key else f'?key={room.key}'} (Ctrl-C ends)", flush=True)
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", server_header=False))
        server.run(sockets=[listening])


def _password(host: str) -> str:
    """Return the password that must be given; none is needed on this machine alone, where the terminal shows a key."""
    password = os.environ.get(PASSWORD, "")
    if host not in LOOPBACK and len(password) < SHORTEST:
        raise UsageError(
            f"--host {host}: other machines could connect; set ${PASSWORD} ({SHORTEST} characters or more)"
        )
    if password and len(password) < SHORTEST:
        raise UsageError(f"${PASSWORD} has fewer than {SHORTEST} characters")
    return password
