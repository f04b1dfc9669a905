"""The web application: addresses, who may use them, and the life of the studio."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..bethesda import COLOURS
from ..io import lock
from .access import Access
from .data_routes import DataRoutes
from .edit_routes import TILE, EditRoutes
from .editing import Editing
from .models import Models
from .opened_folders import OpenedFolders
from .queue import DeviceQueue

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class Studio:
    """One studio: its folders, its queue, its key."""

    def __init__(self, opened: Sequence[Path], out: Path, models: Models, key: str = "", loopback: bool = True) -> None:
        """Show `opened` folders and slides, write into `out`; `loopback` answers to this machine's own names only."""
        self.key = key or secrets.token_urlsafe(18)
        self.out, self.opened, self.models = out, opened, models
        self.access = Access(self.key, LOOPBACK if loopback else None)
        self._stack = contextlib.ExitStack()

    def start(self) -> Starlette:
        """Hold the folder, start the queue, and return the application.

        Raises UserError if another studio has the folder.
        """
        self.grades = self.models.trained.targets
        self._stack.enter_context(lock.only(self.out / ".studio"))
        queue = DeviceQueue(self.models.settings.threads)
        self._stack.callback(queue.close)
        self.editing = Editing(self.models, OpenedFolders.of(self.opened, self.out), queue, self.out)
        self._stack.callback(self.editing.close)
        routes = [
            Route("/", _page), Route("/static/{name}", _page), Route("/api/about", self._about),
            *EditRoutes(self.editing).routes(), *DataRoutes(self.editing).routes(),
        ]  # fmt: skip
        return Starlette(
            routes=routes, lifespan=self._life, middleware=[Middleware(BaseHTTPMiddleware, dispatch=self.access)]
        )

    @contextlib.asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(self._stack.close)

    async def _about(self, _: Request) -> Response:
        names = self.models.names
        return JSONResponse({
            "grades": self.grades, "tile": TILE,
            "colours": {name: list(value) for name, value in COLOURS.items()},
            "models": names, "waiting": self.editing.queue.waiting(), "strength": self.models.settings.cell.strength,
            "ready": self.editing.prepared.finished.is_set(), "problem": self.editing.prepared.error,
        })  # fmt: skip


async def _page(request: Request) -> Response:
    """Return a file of the page."""
    name = request.path_params.get("name", "index.html")
    room = files("cytosynth.studio") / "page"
    known = {entry.name for entry in room.iterdir()}
    if name not in known:
        return Response("no such file", 404)
    return Response(room.joinpath(name).read_bytes(), media_type=KINDS[Path(name).suffix])
