"""The organiser's key: what each cell of a quiz is. It scores answers; readers of a study must not see it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UserError
from ..io import atomic, plain
from .settings import Origin, QuizSettings

FILE = "key.json"


class KeySource(BaseModel):
    """A data set of which cells are shown; `digest` identifies its annotations."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    origin: Origin
    name: str
    digest: str
    cells: int


class KeyItem(BaseModel):
    """One cell: its category and origin, where it comes from, and what was measured of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    category: str
    origin: Origin
    image: str
    bbox_xyxy: tuple[float, float, float, float]
    block: int
    nucleus_diameter: float | None = None
    sharpness: float
    votes: dict[str, int] = {}


class Key(BaseModel):
    """What `key.json` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: Literal[1] = 1
    quiz: str
    software: str
    settings: QuizSettings
    sources: list[KeySource]
    items: list[KeyItem] = Field(min_length=1)

    def answer(self, item: KeyItem) -> str:
        """Return the right answer to `item`."""
        return item.origin if self.settings.mode == "origin" else item.category

    @property
    def choices(self) -> tuple[str, ...]:
        """The answers that a reader can give."""
        return ("real", "synthetic") if self.settings.mode == "origin" else self.settings.categories


def write(key: Key, folder: Path) -> None:
    """Write `key` into `folder`."""
    atomic.write_json(folder / FILE, key.model_dump(mode="json"))


def read(path: Path) -> Key:
    """Return the key in the file `path`, or in the folder; raise UserError if there is none."""
    file = path / FILE if path.is_dir() else path
    try:
        key = Key.model_validate(plain.load(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {where}: {first['msg'].lower()}; give the {FILE} that `quiz make` wrote") from None
    if len({item.id for item in key.items}) < len(key.items):
        raise UserError(f"{file}: an item is listed twice")
    return key
