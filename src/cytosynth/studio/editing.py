"""The operations of the page on a project: open images, find cells, edit and view them, save."""

import base64
import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..annotations import Cell
from ..bethesda import NILM
from ..data import file_names, image_files
from ..data.image_files import Pixels
from ..data.read import FOUND_OUT
from ..data.slides import reader
from ..errors import UserError
from ..io import atomic
from ..provenance import NOTICES
from ..provenance import png as marked
from ..synthesis import own_images
from . import verdicts
from .models import Models
from .opened_folders import OpenedFolders
from .project import MOST_IMAGES, Edit, Found, Project, ProjectImage, Projects
from .queue import BATCH, CLICK, LONG, DeviceQueue, Task

MARGIN = 24
"""Pixels around the edited region in the pair of before and after."""


class Editing:
    """Projects, their images and the queue in which they are worked on."""

    def __init__(self, models: Models, places: OpenedFolders, queue: DeviceQueue, out: Path) -> None:
        """Keep projects, generated fields and uploads in hidden folders of `out`."""
        self.models, self.places, self.queue = models, places, queue
        self.out, self.own = out, out / ".studio"
        self.projects = Projects(self.own / "projects")
        self._listed: dict[Path, dict[str, Path]] = {}
        shutil.rmtree(self.own / "uploads", ignore_errors=True)  # of a studio that was killed
        self.prepared = queue.add("loading the models", self._prepare, LONG)

    def _prepare(self, task: Task) -> None:
        self.models.painter, self.models.gate  # noqa: B018

    def close(self) -> None:
        """Remove the uploads."""
        shutil.rmtree(self.own / "uploads", ignore_errors=True)

    def folder(self, project: Project) -> Path:
        """Return where the image files of `project` lie."""
        if project.kind == "own":
            return self.places.path(project.folder)
        if project.kind == "fields":
            return self.out / f"fields-{project.id}"
        return self.own / ("uploads" if project.kind == "uploads" else "generated") / project.id

    def files(self, project: Project) -> dict[str, Path]:
        """Return the file of each image; an opened folder is listed once."""
        folder = self.folder(project)
        if project.kind != "own":
            return {image.name: file_names.inside(folder, image.name) for image in project.images}
        if folder not in self._listed:
            self._listed[folder] = {
                name: path for name, path, _ in own_images.gather(folder, None, "all", FOUND_OUT).images
            }
        there = self._listed[folder]
        gone = next((image.name for image in project.images if image.name not in there), None)
        if gone is not None:
            raise UserError(f"{gone[:80]} is no longer in {folder.name}")
        return there

    def open_folder(self, name: str) -> Project:
        """Return a new project on the images of an opened folder or data set, as `cytosynth edit` would take them."""
        listed = own_images.gather(self.places.path(name), None, "all", FOUND_OUT).images
        project = self.projects.new("own", name)
        project.images = [ProjectImage(name=file) for file, _, _ in listed[:MOST_IMAGES]]
        self.projects.keep(project)
        return project

    def discard(self, project: Project) -> None:
        """Forget `project` and the images that it has to itself; fields cut from a slide stay, saved sets need them."""
        self.projects.forget(project.id)
        if project.kind in ("uploads", "generated"):
            shutil.rmtree(self.folder(project), ignore_errors=True)

    def upload(self, project: Project, name: str, content: bytes) -> ProjectImage:
        """Add an image file that was dropped on the page; it is removed when the project or the studio is closed.

        Raises ImageProblem for what `image_files.read` refuses.
        """
        bare = Path(name).name
        if Path(bare).suffix.lower() not in image_files.SUFFIXES or file_names.unsafe(bare) or bare.startswith("."):
            raise UserError(f"{bare[:80]!r}: not an image ({', '.join(sorted(image_files.SUFFIXES))})")
        if bare in {image.name for image in project.images}:
            raise UserError(f"{bare[:80]}: an image of that name is already open")
        path = self.folder(project) / bare
        atomic.write_bytes(path, content)
        try:
            image_files.read(path)
        except UserError as error:
            path.unlink()
            raise UserError(f"{bare[:80]}: {str(error).rpartition(': ')[2]}") from None
        project.images.append(ProjectImage(name=bare))
        self.projects.keep(project)
        return project.images[-1]

    def cut_field(self, project: Project, slide: str, x: int, y: int, side: int = 1024) -> ProjectImage:
        """Cut a field out of a slide at the working scale, as `cytosynth tiles` does, and add it to the project."""
        path = self.places.path(slide)
        with reader.opened(path) as opened:
            view = opened.at()
            width, height = view.size
            side = min(side, width, height)
            x, y = min(max(x, 0), width - side), min(max(y, 0), height - side)
            pixels = view.read(x, y, side, side)
        name = f"{path.stem}_{x}_{y}.png"
        if name not in {image.name for image in project.images}:
            atomic.write_bytes(self.folder(project) / name, png(pixels))
            project.images.append(ProjectImage(name=name))
            self.projects.keep(project)
        return project.image(name)

    def generate(self, project: Project) -> Task:
        """Draw the next normal field of a project of generated ones."""
        index = len(project.images)

        def work(task: Task) -> dict[str, Any]:
            pixels = self.models.draw(project.seed, index, task)
            with self.projects.lock:
                now = self.projects.read(project.id)
                name = f"{index:06d}.png"
                atomic.write_bytes(self.folder(now) / name, png(pixels))
                now.images.append(ProjectImage(name=name, index=index))
                self.projects.keep(now)
            return {"image": name}

        return self.queue.add("generating a normal field", work, LONG)

    def pixels(self, project: Project, image: str) -> Pixels:
        """Return an image of the project as it is edited: upright, at the scale of the settings."""
        path = self.files(project)[project.image(image).name]
        scale = self.models.settings.scale if project.kind in ("own", "uploads") else 1.0
        return self.models.pixels(path, scale)

    def find(self, project: Project, image: str) -> Task:
        """Find the cells of an image, once."""

        def work(task: Task) -> dict[str, Any]:
            cells = [cell for cell in self.models.find(self.pixels(project, image), task) if cell.category == NILM]
            found = [Found(box=cell.box, score=cell.score or 0.0) for cell in cells]
            with self.projects.lock:
                now = self.projects.read(project.id)
                now.image(image).cells = found
                self.projects.keep(now)
            return {"cells": [one.model_dump() for one in found]}

        return self.queue.add("finding cells", work, BATCH)

    def paint(self, project: Project, edit: Edit, priority: int = CLICK) -> Task:
        """Make one edit; the result has the region's PNG, the pair of before and after, and the gate in words."""

        def work(task: Task) -> dict[str, Any]:
            pixels = self.pixels(project, edit.image)
            settings = self.models.edit_settings(project.kind == "generated")
            size = (pixels.shape[1], pixels.shape[0])
            planned = edit.planned(settings.box_scale or 1.0, size)
            alone, verdict = self.models.edit(pixels, Cell(edit.box, NILM), planned, settings, task)
            x0, y0, x1, y1 = (int(value) for value in planned.box)
            around = _around((x0, y0, x1, y1), size)
            gate = self.models.gate
            return {
                "edit": edit.model_dump(), "region": [x0, y0, x1, y1],
                "png": _address(alone[y0:y1, x0:x1], project.kind),
                "before": _address(_cut(pixels, around)), "after": _address(_cut(alone, around), project.kind),
                "verdict": verdicts.words(verdict, edit.category, gate.settings) if verdict and gate else [],
                "kept": not verdict.reasons if verdict else None,
            }  # fmt: skip

        return self.queue.add(f"editing a cell into {edit.category}", work, priority)


def png(pixels: Pixels, origin: str = "") -> bytes:
    """Return `pixels` as a PNG; of an `origin` of provenance it says that it is synthetic."""
    if origin:
        return marked(pixels, {"origin": origin})
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _address(pixels: Pixels, kind: str = "") -> str:
    """Return the `data:` address of a PNG, marked as synthetic where it is of an edit in images of that kind."""
    origin = {"": "", "generated": "synthetic"}.get(kind, "real-to-synthetic")
    assert not origin or origin in NOTICES
    return f"data:image/png;base64,{base64.b64encode(png(pixels, origin)).decode()}"


def _around(box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    return (max(0, box[0] - MARGIN), max(0, box[1] - MARGIN),
            min(size[0], box[2] + MARGIN), min(size[1], box[3] + MARGIN))  # fmt: skip


def _cut(pixels: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    return pixels[box[1] : box[3], box[0] : box[2]]
