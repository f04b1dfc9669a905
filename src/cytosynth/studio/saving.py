"""Saving a project: the plan, followed by the same code as `cytosynth edit --plan`, into the same bytes."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import file_names, image_files
from ..data.read import FOUND_OUT
from ..errors import UserError
from ..io import atomic, lock
from ..synthesis import own_images, synthesize
from ..synthesis import plan as plans
from ..synthesis.computing import decided
from ..synthesis.jobs import Job, planned_fields, planned_own
from .editing import Editing
from .project import Project
from .queue import LONG, Task

LONGEST_NAME = 80


def free(out: Path, name: str) -> Path:
    """Return the folder `name` of `out`, which is to be made; raise UserError for no plain name, or one taken."""
    if file_names.unsafe(name) or "/" in name or name.startswith(".") or len(name) > LONGEST_NAME:
        raise UserError(f"{name[:80]!r}: not a valid folder name")
    if (out / name).exists():
        raise UserError(f"{name}: already exists in {out.name}; choose another name")
    return out / name


def save(editing: Editing, project: Project, name: str) -> Task:
    """Write the edited images of `project` as the data set `name` of the studio's folder."""
    out = free(editing.out, name)
    if not project.edits:
        raise UserError("nothing to save: no cell has been edited")

    def work(task: Task) -> dict[str, Any]:
        editing.models.painter.check = task.check
        with lock.new(out), atomic.folder(out, fresh=True) as part, tempfile.TemporaryDirectory() as place:
            plan = _plan(editing, project, Path(place))
            data = _follow(editing, project, plan, part)
        editing.models.painter.check = lambda: None
        return {"name": editing.places.name(out), "title": name, "images": len(data.images),
                "cells": sum(len(image.cells) for image in data.images),
                "command": _command(editing, project, out)}  # fmt: skip

    return editing.queue.add(f"saving {name}", work, LONG)


def _plan(editing: Editing, project: Project, folder: Path) -> Path:
    """Write the plan of `project` into `folder`, images and cells in their order; return its file."""
    generated = project.kind == "generated"
    taken: set[str] = set()
    records: list[Mapping[str, Any]] = []
    for image in project.images:
        cells = [
            {"bbox_xyxy": list(edit.box), "category": edit.category, "seed": edit.seed}
            | ({} if edit.strength is None else {"strength": edit.strength})
            for edit in project.edits if edit.image == image.name
        ]  # fmt: skip
        if not cells:
            continue
        height, width = editing.pixels(project, image.name).shape[:2]
        record = {"file_name": file_names.flat(image.name, ".png", taken), "width": width, "height": height,
                  "cells": cells}  # fmt: skip
        if generated:
            record |= {"seed": project.seed, "key": image.index}
        else:
            path = editing.files(project)[image.name]
            record |= {"original": image.name, "original_sha256": image_files.fingerprint(path)}
        records.append(record)
    settings = editing.models.settings.model_copy(update={"cell": editing.models.edit_settings(generated)})
    if project.kind == "fields":
        settings = settings.model_copy(update={"scale": 1.0})
    plans.write(records, settings, editing.models.pipeline(generated).models(), folder)
    return folder / plans.FILE


def _follow(editing: Editing, project: Project, path: Path, out: Path) -> Any:
    """Follow the plan in the file `path`, as the command line does."""
    plan = plans.read(path, editing.models.trained.targets)
    settings = decided(plan.base(), None, editing.models.device)
    pipeline = editing.models.pipeline(project.kind == "generated")
    if project.kind == "generated":
        jobs, sizes = planned_fields(plan, path, settings)
        jobs = [_drawn(editing, project, job) for job in jobs]
        return synthesize.follow(pipeline, plan, path, jobs, sizes, settings, out)
    own = own_images.gather(editing.folder(project), None, "all", FOUND_OUT)
    jobs, sizes = planned_own(plan, path, own.images, settings)
    return synthesize.follow(
        pipeline, plan, path, jobs, sizes, settings, out,
        licences=own.licences, derived_from=own.info, refused=own.refused, strict=False,
    )  # fmt: skip


def _drawn(editing: Editing, project: Project, job: Job) -> Job:
    """Return `job` with the field that was already generated: generating it again would give the same."""
    name = next(image.name for image in project.images if image.index == job.key)
    return replace(job, normal=lambda: editing.pixels(project, name))


def _command(editing: Editing, project: Project, out: Path) -> str:
    """Return the command that makes the data set again."""
    options = "".join(
        f" --{role} {name}" for role, name in editing.models.names.items()
        if role not in ("detector", "gate") and name != "bundled" and (role != "normal" or project.kind == "generated")
    )  # fmt: skip
    if project.kind == "generated":
        return f"cytosynth synthesize AGAIN --plan {out.name}/plan.json{options}"
    source = {"own": editing.folder(project).name, "uploads": "YOUR_IMAGES"}.get(project.kind, f"fields-{project.id}")
    return f"cytosynth edit {source} AGAIN --plan {out.name}/plan.json{options}"
