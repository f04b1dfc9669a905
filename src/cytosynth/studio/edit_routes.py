"""Addresses of the tab Edit."""

import asyncio
import secrets
from typing import Any

import numpy as np
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..data import image_files
from ..data.slides import reader
from ..errors import UserError
from . import saving
from .answers import Refused, body, content, guarded, image, later, number, text, whole
from .editing import Editing
from .project import Edit, Project, first_seed
from .queue import BATCH

TILE = 512
"""Pixels of the side of a tile of the viewer."""
WAIT = 20.0
"""Seconds that the page waits for a task before it asks again."""
MOST_FILE = 320_000_000
SEEDS = 4
"""Of the gallery, in addition to the one that a cell has."""


class EditRoutes:
    """What the page asks while cells are edited."""

    def __init__(self, editing: Editing) -> None:
        """Answer from `editing`."""
        self.editing = editing

    def routes(self) -> list[Route]:
        """Return the addresses with what answers them."""
        table = (
            ("/projects", "GET", self.listed), ("/projects", "POST", self.new), ("/projects/{id}", "GET", self.project),
            ("/projects/{id}", "DELETE", self.close), ("/projects/{id}/upload", "POST", self.upload),
            ("/projects/{id}/field", "POST", self.field), ("/projects/{id}/find", "POST", self.find),
            ("/projects/{id}/edit", "POST", self.edit), ("/projects/{id}/paint", "POST", self.paint),
            ("/projects/{id}/gallery", "POST", self.gallery), ("/projects/{id}/save", "POST", self.save),
            ("/projects/{id}/tile", "GET", self.tile), ("/projects/{id}/size", "GET", self.size),
            ("/slide", "GET", self.slide), ("/slide/tile", "GET", self.slide_tile),
            ("/tasks/{id}", "GET", self.task), ("/tasks/{id}", "DELETE", self.cancel),
        )  # fmt: skip
        return [Route(f"/api{path}", guarded(handler), methods=[method]) for path, method, handler in table]

    def _project(self, request: Request) -> Project:
        return self.editing.projects.read(request.path_params["id"])

    async def listed(self, _: Request) -> Response:
        """Return projects with content: unfinished work of closed pages."""
        found = await later(self.editing.projects.listed)
        return JSONResponse([
            {"id": one.id, "kind": one.kind, "images": len(one.images), "edits": len(one.edits),
             "title": one.images[0].name if one.images else ""} for one in found if one.images
        ])  # fmt: skip

    async def new(self, request: Request) -> Response:
        """Open a folder, or begin a project of uploads, of fields of a slide, or of generated fields."""
        values = await body(request)
        kind = text(values, "kind")
        if kind == "own":
            return _said(await later(self.editing.open_folder, text(values, "folder")))
        if kind not in ("uploads", "fields", "generated"):
            raise Refused(f"kind {kind[:40]!r}")
        seed = whole(values, "seed") if kind == "generated" else 0
        return _said(await later(self.editing.projects.new, kind, "", seed))

    async def project(self, request: Request) -> Response:
        """Return a project."""
        return _said(await later(self._project, request))

    async def close(self, request: Request) -> Response:
        """Forget a project and its uploads."""
        await later(self.editing.discard, self._project(request))
        return JSONResponse({})

    async def upload(self, request: Request) -> Response:
        """Take in an image file."""
        name, file = request.query_params.get("name", ""), await content(request, MOST_FILE)

        def add() -> Project:
            with self.editing.projects.lock:
                project = self._project(request)
                if project.kind != "uploads":
                    raise Refused("images can be added only to a project of dropped images")
                self.editing.upload(project, name, file)
                return project

        return _said(await later(add))

    async def field(self, request: Request) -> Response:
        """Draw another field, or cut one out of a slide."""
        values = await body(request)
        project = self._project(request)
        if project.kind == "generated":
            return JSONResponse(self.editing.generate(project).said())
        where = text(values, "slide"), whole(values, "x", 0, 10**7), whole(values, "y", 0, 10**7)
        added = await later(self.editing.cut_field, project, *where)
        return JSONResponse({"image": added.name})

    async def find(self, request: Request) -> Response:
        """Find the cells of an image."""
        return JSONResponse(self.editing.find(self._project(request), text(await body(request), "image")).said())

    async def edit(self, request: Request) -> Response:
        """Add or change an edit, delete some, undo or redo; return the edits, and the task that paints the new one."""
        values = await body(request)
        return JSONResponse(await later(self._edit, request.path_params["id"], values))

    def _edit(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        models = self.editing.models
        with self.editing.projects.lock:
            project = self.editing.projects.read(name)
            action = text(values, "do")
            task = None
            if action == "put":
                edit = _edit_of(values, project)
                pixels = self.editing.pixels(project, edit.image)
                size = (pixels.shape[1], pixels.shape[0])
                edit = project.put(edit, models.box_scale, size, models.trained.targets)
                task = self.editing.paint(project, edit)
            elif action == "delete":
                names = values.get("ids")
                project.delete([str(one) for one in names] if isinstance(names, list) else [])
            elif action in ("undo", "redo"):
                (project.undo if action == "undo" else project.redo)()
            else:
                raise Refused(f"do {action[:40]!r}")
            self.editing.projects.keep(project)
        return _state(project) | ({"task": task.id} if task else {})

    async def paint(self, request: Request) -> Response:
        """Paint edits that the page has not seen yet."""
        values, project = await body(request), self._project(request)
        wanted = [edit for edit in project.edits if edit.image == text(values, "image")]
        return JSONResponse([self.editing.paint(project, edit, BATCH).id for edit in wanted])

    async def gallery(self, request: Request) -> Response:
        """Paint a cell in every category offered, with several seeds (Figure 7), without changing the project."""
        values, project = await body(request), self._project(request)
        categories = self.editing.models.trained.targets
        base = _edit_of({**values, "category": categories[0]}, project)
        tasks = []
        for category in categories:
            for step in range(SEEDS):
                edit = base.model_copy(update={"category": category, "seed": (base.seed + step) % 2**63})
                tasks.append({"category": category, "seed": edit.seed,
                              "task": self.editing.paint(project, edit, BATCH).id})  # fmt: skip
        return JSONResponse(tasks)

    async def save(self, request: Request) -> Response:
        """Save the project as a data set."""
        name = text(await body(request), "name").strip()
        task = await later(saving.save, self.editing, self._project(request), name)
        return JSONResponse(task.said())

    async def size(self, request: Request) -> Response:
        """Return width and height of an image."""
        pixels = await later(self.editing.pixels, self._project(request), request.query_params.get("image", ""))
        return JSONResponse({"width": pixels.shape[1], "height": pixels.shape[0]})

    async def tile(self, request: Request) -> Response:
        """Return a tile of an image, reduced by 2 to the power of `level`."""
        project = self._project(request)
        level, x, y = (number(request, name) for name in ("level", "x", "y"))
        pixels = await later(self.editing.pixels, project, request.query_params.get("image", ""))
        side = TILE << min(level, 12)
        part = pixels[y * side : (y + 1) * side, x * side : (x + 1) * side]
        if not part.size:
            raise Refused("no such tile")
        return image(await later(_reduced, part, level), seconds=3600)

    async def slide(self, request: Request) -> Response:
        """Return width and height of a slide at the working scale."""
        path = self.editing.places.path(request.query_params.get("name", ""))
        return JSONResponse(await later(_slide_size, path))

    async def slide_tile(self, request: Request) -> Response:
        """Return a tile of a slide at the working scale, reduced by 2 to the power of `level`."""
        path = self.editing.places.path(request.query_params.get("name", ""))
        where = [number(request, name) for name in ("level", "x", "y")]
        return image(await later(_slide_tile, path, *where), seconds=3600)

    async def task(self, request: Request) -> Response:
        """Return a task, as soon as it is finished or after a while."""
        task = self.editing.queue.task(request.path_params["id"])
        await asyncio.to_thread(task.finished.wait, WAIT)
        return JSONResponse(task.said())

    async def cancel(self, request: Request) -> Response:
        """Cancel a task."""
        task = self.editing.queue.task(request.path_params["id"])
        task.cancel()
        return JSONResponse(task.said())


def _edit_of(values: dict[str, Any], project: Project) -> Edit:
    """Return the edit that the page asks for; a new one gets an id and its first seed."""
    given = {key: values[key] for key in ("id", "image", "box", "category", "seed", "strength") if key in values}
    box = given.get("box")
    try:
        if isinstance(box, list) and len(box) == 4 and given.get("seed") is None:
            given["seed"] = first_seed(
                str(given.get("image")), (box[0] + 0.0, box[1] + 0.0, box[2] + 0.0, box[3] + 0.0)
            )
        edit = Edit.model_validate({"id": secrets.token_hex(6), **given})
    except (ValidationError, TypeError):
        raise Refused("an edit needs image, box (four numbers), category, seed and strength (0 to 1)") from None
    project.image(edit.image)
    return edit


def _said(project: Project) -> Response:
    return JSONResponse({"id": project.id, "kind": project.kind, "folder": project.folder, "seed": project.seed,
                         "images": [one.model_dump() for one in project.images], **_state(project)})  # fmt: skip


def _state(project: Project) -> dict[str, Any]:
    return {"edits": [edit.model_dump() for edit in project.edits], "undo": project.step > 0,
            "redo": project.step < len(project.history) - 1}  # fmt: skip


def _reduced(pixels: image_files.Pixels, level: int) -> image_files.Pixels:
    """Return `pixels` reduced by 2 to the power of `level`: means of squares, the last row and column repeated."""
    factor = 1 << min(level, 12)
    if factor == 1:
        return pixels
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).round(), dtype=np.uint8)


def _slide_size(path: Any) -> dict[str, int]:
    with reader.opened(path) as slide:
        width, height = slide.at().size
    return {"width": width, "height": height}


def _slide_tile(path: Any, level: int, x: int, y: int) -> image_files.Pixels:
    with reader.opened(path) as slide:
        view = slide.at()
        factor = 1 << min(level, 12)
        reduced = type(view)(slide, view.factor * factor)
        width, height = reduced.size
        left, top = x * TILE, y * TILE
        if left >= width or top >= height:
            raise UserError("no such tile")
        return reduced.read(left, top, min(TILE, width - left), min(TILE, height - top))
