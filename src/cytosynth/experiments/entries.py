"""Reading back what one cell of an experiment came to."""

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from ..errors import UserError
from ..io import plain

E = TypeVar("E")


def read(kind: type[E], file: Path) -> E:
    """Return the `kind`, a dataclass, in the JSON of `file`; raise UserError if there is another thing."""
    try:
        return TypeAdapter(kind).validate_python(plain.from_json(plain.text(file)))
    except ValueError:
        raise UserError(f"{file}: damaged; delete it, and the same command creates it again") from None
