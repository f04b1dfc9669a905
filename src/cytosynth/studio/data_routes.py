"""Addresses of the tabs Correct, Look and Quiz."""

import secrets
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..augmentation import inputs
from ..config import validated
from ..data import file_names, image_files
from ..errors import UserError
from ..io import atomic, plain
from ..quiz import answers, key, make, report
from ..quiz.settings import QuizSettings
from . import browsing, correcting
from .answers import Refused, body, guarded, image, later, number, text, whole
from .browsing import Browsing
from .correcting import Corrections, Decision
from .editing import Editing
from .queue import LONG
from .saving import free

PAGE_POLICY = {"Content-Security-Policy": "frame-ancestors 'none'", "Cache-Control": "no-store"}
"""Of a quiz page, which has a policy of its own in it."""


class DataRoutes:
    """What the page asks of finished data sets."""

    def __init__(self, editing: Editing) -> None:
        """Answer from the opened folders of `editing`."""
        self.editing, self.places, self.queue = editing, editing.places, editing.queue
        self.browsing = Browsing(editing.models)

    def routes(self) -> list[Route]:
        """Return the addresses with what answers them."""
        table = (
            ("/places", "GET", self.listed), ("/set", "GET", self.cells), ("/set/crop", "GET", self.crop),
            ("/set/image", "GET", self.image), ("/set/measure", "POST", self.measure),
            ("/set/nearest", "POST", self.nearest), ("/run", "GET", self.run), ("/run/preview", "GET", self.preview),
            ("/corrections", "GET", self.corrections), ("/corrections", "POST", self.decide),
            ("/corrections/export", "POST", self.export), ("/quiz", "POST", self.make_quiz),
            ("/quiz/score", "POST", self.score), ("/quiz/plot", "GET", self.plot),
        )  # fmt: skip
        found = [Route(f"/api{path}", guarded(handler), methods=[method]) for path, method, handler in table]
        return [*found, Route("/quiz/{place:path}", guarded(self.quiz_page), methods=["GET"])]

    def _path(self, request: Request, name: str = "name") -> Path:
        return self.places.path(request.query_params.get(name, ""))

    async def listed(self, _: Request) -> Response:
        """Return what can be opened."""
        return JSONResponse(await later(self.places.listed))

    async def cells(self, request: Request) -> Response:
        """Return the cells of a data set."""
        return JSONResponse(await later(self.browsing.cells, self._path(request)))

    async def crop(self, request: Request) -> Response:
        """Return the square around a cell; of a synthetic one it says so."""
        name, index = request.query_params.get("image", ""), number(request, "number")
        pixels, cell = await later(self.browsing.crop, self._path(request), name, index)
        return image(pixels, "synthetic" if cell.extra.get("synthetic") else "", seconds=600)

    async def image(self, request: Request) -> Response:
        """Return the image file of a data set as it is, marks and all."""
        data = await later(self.browsing.data, self._path(request))
        path = file_names.inside(data.folder, request.query_params.get("image", ""))
        await later(image_files.size, path)
        return FileResponse(path)

    async def measure(self, request: Request) -> Response:
        """Measure the nuclei of a data set."""
        root = self.places.path(text(await body(request), "name"))
        return JSONResponse(
            self.queue.add("measuring nuclei", lambda task: self.browsing.measure(root, task), LONG).said()
        )

    async def nearest(self, request: Request) -> Response:
        """Find the training cells nearest to a cell."""
        values = await body(request)
        root, training = (self.places.path(text(values, name)) for name in ("name", "training"))
        which = text(values, "image"), whole(values, "number")
        work = self.browsing.nearest
        task = self.queue.add(
            "finding the nearest training cells", lambda task: work(root, *which, training, task), LONG
        )
        return JSONResponse(task.said())

    async def run(self, request: Request) -> Response:
        """Return curves and previews of a training run."""
        return JSONResponse(await later(browsing.run, self._path(request)))

    async def preview(self, request: Request) -> Response:
        """Return a preview of a training run."""
        path = file_names.inside(self._path(request) / "previews", request.query_params.get("image", ""))
        await later(image_files.size, path)
        return FileResponse(path)

    def _corrections(self, root: Path) -> tuple[Path, Corrections]:
        digest = inputs.annotations(root)
        name = self.places.name(root).replace("/", "_")
        file = self.editing.own / "corrections" / f"{name}.json"
        return file, correcting.read(file, digest)

    async def corrections(self, request: Request) -> Response:
        """Return the decisions on a data set so far."""
        _, found = await later(self._corrections, self._path(request))
        return JSONResponse(found.model_dump(mode="json"))

    async def decide(self, request: Request) -> Response:
        """Keep a decision on a cell."""
        values = await body(request)
        root = self.places.path(text(values, "name"))
        try:
            decision = Decision.model_validate(values.get("decision"))
        except ValidationError as error:
            raise Refused(f"decision: {error.errors()[0]['msg'].lower()}") from None

        def keep() -> None:
            with self.editing.projects.lock:
                file, found = self._corrections(root)
                correcting.decide(found, self.browsing.data(root), decision)
                atomic.write_text(file, found.model_dump_json())

        await later(keep)
        return JSONResponse({})

    async def export(self, request: Request) -> Response:
        """Write a corrected copy of a data set."""
        values = await body(request)
        root, target = self.places.path(text(values, "name")), text(values, "format")
        out = free(self.editing.out, text(values, "to").strip())

        def write() -> dict[str, Any]:
            _, found = self._corrections(root)
            said = correcting.export(self.browsing.data(root), root, found, out, target)
            return {**said, "name": self.places.name(out)}

        return JSONResponse(await later(write))

    async def make_quiz(self, request: Request) -> Response:
        """Make a quiz of opened data sets."""
        values = await body(request)
        out = free(self.editing.out, text(values, "to").strip())
        sets = {name: self.places.path(values[name]) if values.get(name) else None for name in ("real", "synthetic")}
        given = values.get("settings")
        chosen = {"seed": secrets.randbelow(2**63), **(given if isinstance(given, dict) else {})}
        settings = validated(QuizSettings, chosen, "quiz")

        def work(_: Any) -> dict[str, Any]:
            moodle = bool(values.get("moodle")) and settings.kind == "teaching"
            made = make.make(out, settings, sets["real"], sets["synthetic"], moodle)
            pages = sorted(path.name for path in (out / make.PAGES).iterdir())
            return {"name": self.places.name(out), "items": len(made.items), "pages": pages}

        return JSONResponse(self.queue.add("making a quiz", work, LONG).said())

    async def quiz_page(self, request: Request) -> Response:
        """Return a page of a quiz."""
        path = self.places.path(request.path_params["place"])
        if path.suffix != ".html" or path.parent.name != make.PAGES or not (path.parent.parent / key.FILE).is_file():
            raise UserError("not a page of a quiz")
        return FileResponse(path, media_type="text/html", headers=PAGE_POLICY)

    async def score(self, request: Request) -> Response:
        """Score the answers to a quiz; tables, plot and text go into a folder next to it."""
        values = await body(request)
        root = self.places.path(text(values, "name"))
        files = values.get("answers")
        if not isinstance(files, list) or not files or not all(isinstance(one, str) for one in files):
            raise Refused("answers: expected the contents of the answer files")
        out = free(self.editing.out, f"{root.name}-score-{secrets.token_hex(3)}")

        def work() -> dict[str, Any]:
            chosen = key.read(root)
            with tempfile.TemporaryDirectory() as folder:
                paths = [Path(folder) / f"answers-{number}" for number in range(1, len(files) + 1)]
                for path, content in zip(paths, files, strict=True):
                    path.write_text(content, encoding="utf-8")
                try:
                    readings = answers.readings(paths, chosen)
                except UserError as error:
                    raise UserError(plain.one_line(error).replace(f"{folder}/", "")) from None
            tables = report.write(chosen, readings, out)
            said = {name: {"title": t.title, "columns": t.columns, "rows": t.rows} for name, t in tables.items()}
            return {"name": self.places.name(out), "tables": said}

        return JSONResponse(await later(work))

    async def plot(self, request: Request) -> Response:
        """Return the plot of a score."""
        return FileResponse(file_names.inside(self._path(request), report.PLOT))
