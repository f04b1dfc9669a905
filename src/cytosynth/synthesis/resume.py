"""What may not change between two calls of a run: `settings.yaml`, and the files that were edited."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, field_validator

from ..config import read
from ..errors import UsageError
from .centre import kept_cells
from .computing import as_computed, computed
from .jobs import Job
from .settings import PipelineSettings

SETTINGS = "settings.yaml"


class Pinned(BaseModel):
    """Settings, models by role, and digests: of the plan, of the images that share the counts, of their data set.

    Of the data set, its description and licences, which apply to all images of the run.
    """

    settings: PipelineSettings
    models: dict[str, str]
    plan: str = ""
    images: str = ""
    source: str = ""

    @field_validator("settings", mode="before")
    @classmethod
    def _as_it_was(cls, values: Any) -> Any:
        """Read settings of earlier versions, whose edits had the same strength everywhere, as such."""
        cell = values.get("cell") if isinstance(values, dict) else None
        if not isinstance(cell, dict):
            return values
        return values | {"cell": {"fall": 0.0} | cell}

    @classmethod
    def of(
        cls, settings: PipelineSettings, models: dict[str, str], plan: str, names: Sequence[str], said: Sequence[Any]
    ) -> "Pinned":
        """Return what is pinned of a run: `names` of all images where they matter together, what is `said` of all."""
        images = _digest("\n".join(names)) if names else ""
        source = _digest(json.dumps(said, sort_keys=True)) if any(said) else ""
        return cls(settings=settings, models=models, plan=plan, images=images, source=source)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def written(out: Path) -> PipelineSettings | None:
    """Return the settings of the run in the folder `out`, None where there is none yet."""
    path = out / SETTINGS
    return read(Pinned, path).settings if path.is_file() else None


def difference(old: Pinned, wanted: Pinned) -> str:
    """Return in words what differs in `wanted`, empty if both are of the same run."""
    if old == wanted:
        return ""
    if old.plan != wanted.plan:
        return "another plan"
    if old.model_copy(update={"images": wanted.images}) == wanted:
        return "other images, over which the counts were distributed"
    if old.model_copy(update={"source": wanted.source}) == wanted:
        return "images of another set, with other licences or another description"
    if old.model_copy(update={"settings": as_computed(old.settings, wanted.settings)}) == wanted:
        before, now = computed(old.settings), computed(wanted.settings)
        other = [f"another {key} ({before[key]}, not {now[key]})" for key in before if before[key] != now[key]]
        return " and ".join(other)
    return "other settings or models"


def same_original(out: Path, job: Job, record: Mapping[str, Any]) -> None:
    """Raise UsageError if the file that `job` edits is not the original in `record`, or its kept cells are others."""
    if record.get("original_sha256") != job.extra.get("original_sha256"):
        raise UsageError(
            f"{out}: {job.file_name} was made from another file of the name {job.extra.get('original')}; "
            "use another folder"
        )
    if kept_cells(job.kept, record["width"], record["height"]) != record.get("kept", []):
        raise UsageError(
            f"{out}: {job.file_name} was made with other annotated cells in {job.extra.get('original')}; "
            "use another folder"
        )
