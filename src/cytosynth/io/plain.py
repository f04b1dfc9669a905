"""Untrusted text: files of bounded size, JSON of bounded depth, YAML without tags or aliases.

What comes out is made of dicts, lists, strings, numbers, booleans and None, and can be written again.
"""

import json
import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter

from ..errors import FormatProblem, UserError

T = TypeVar("T")
ANEW = "damaged; delete it, and the same command creates it again"
MAX_BYTES = 512 * 1024**2
"""Of an annotation file; the largest of COCO 2017 has 450 MB."""
MAX_SMALL = 4 * 1024**2
"""Of a label, recipe or configuration file."""
MAX_YAML = 256 * 1024
"""Of a YAML file, whose reader takes seconds for a megabyte."""
MAX_DEPTH = 64
MAX_BITS = 64
"""Of a whole number; Python reads longer ones than it writes."""
MAX_PARSED = 3 * 2**30
"""Bytes that the values of a JSON text may take: four million boxes."""
LINE = 240
"""Bytes added for each line, so that a file of only line ends is limited too."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters, unpaired surrogates and non-characters: not allowed in names; a terminal interprets some."""


def text(path: Path, most: int = MAX_SMALL) -> str:
    """Return the UTF-8 text of the regular file at `path`, without a byte order mark.

    Raises OSError, or ValueError for what is no text, no regular file (a pipe or device would block), or larger than
    `most` bytes.
    """
    _bounded(path, most)
    return path.read_text(encoding="utf-8-sig")


def content(path: Path, most: int = MAX_SMALL) -> bytes:
    """Return the bytes of the regular file at `path`; raise OSError or ValueError as `text` does."""
    _bounded(path, most)
    return path.read_bytes()


def _bounded(path: Path, most: int) -> None:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("not a regular file")
    if state.st_size > most:
        raise ValueError(f"larger than {most >> 20} MiB")


def lines(path: Path, most: int = MAX_BYTES) -> Iterator[Any]:
    """Yield the JSON value of each line of the file at `path`; nothing if there is none.

    A line that holds no value which can be written again is dropped: a kill may have cut it short, amid a character
    too. Raises UserError for what is no regular file, larger than `most` bytes, or of too many values.
    """
    if not path.exists():
        return
    try:
        _bounded(path, most)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    room = MAX_PARSED
    with path.open("rb") as file:
        for line in file:
            room -= LINE
            try:
                content = line.decode("utf-8-sig")
                room -= _taken(content)
                if room < 0:
                    raise UserError(f"{path}: its values would take more than {MAX_PARSED >> 30} GiB")
                value = checked(json.loads(content), nan=True)
            except (ValueError, RecursionError):
                continue
            yield value


def one_line(message: object) -> str:
    """Return `message` in printable form: control characters, including line ends, are escaped."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), str(message))


def last(path: Path | str) -> str:
    """Return the last part of `path` in printable form: names need not be UTF-8."""
    return one_line(Path(path).name)


def counted(content: str) -> str:
    """Return the JSON text `content`; raise ValueError if its values, counted before they are made, are too many.

    What Python needs for `[],` is twenty times its own length.
    """
    if _taken(content) > MAX_PARSED:
        raise ValueError(f"its values would take more than {MAX_PARSED >> 30} GiB")
    return content


def _taken(content: str) -> int:
    return 240 * content.count("{") + 100 * content.count("[") + 40 * content.count(",")


def from_json(content: str) -> Any:
    """Return the value of the JSON text `content`; raise ValueError if it is none, too deep, or too large."""
    try:
        return json.loads(counted(content))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def from_yaml(content: str) -> Any:
    """Return the value of the YAML text `content`; raise ValueError if it is none.

    An alias can make a few lines into gigabytes, so there are none; nor tags, nor dates, which JSON has no place for.
    """
    if len(content) > MAX_YAML:
        raise ValueError(f"larger than {MAX_YAML >> 10} KiB")
    try:
        value = yaml.load(content, _Plain)  # a SafeLoader that is stricter still
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "nested too deeply"
        raise ValueError(f"not plain YAML ({problem})") from None
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"not plain YAML ({type(error).__name__})") from None
    return checked(value, nan=True)


def checked(value: Any, nan: bool = False, depth: int = MAX_DEPTH) -> Any:
    """Return `value` if it can be written as JSON in UTF-8; raise ValueError saying why not.

    NaN and infinity are allowed only with `nan`.
    """
    if depth < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        value.encode()  # lone surrogates, which JSON can spell
    elif isinstance(value, float):
        if not nan and not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
    elif isinstance(value, dict):
        for key, inner in value.items():
            checked(key, nan, depth - 1)
            checked(inner, nan, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            checked(inner, nan, depth - 1)
    elif isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise ValueError(f"a whole number of more than {MAX_BITS} bits")
    elif value is not None:
        raise ValueError(f"a {type(value).__name__} where plain values are expected")
    return value


class _Plain(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and without dates."""

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", None)
        return super().compose_node(parent, index)


def portable(value: Any) -> Any:
    """Return the plain `value` with the absolute paths in it cut to their last part, to keep folders private."""
    if isinstance(value, dict):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [portable(inner) for inner in value]
    return PurePath(value).name if isinstance(value, str) and PurePath(value).is_absolute() else value


def typed(
    kind: type[T],
    file: Path,
    todo: str = "damaged; delete it, and the same command creates it again",
    most: int = MAX_SMALL,
) -> T:
    """Return the JSON in `file` as a `kind`: a model, dataclass or named tuple.

    Raises UserError, which says what is wrong and `todo`, where it is something else.
    """
    try:
        return TypeAdapter(kind).validate_python(from_json(text(file, most)))
    except ValueError:
        raise UserError(f"{file}: {todo}") from None


def load(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`; raise FormatProblem if there is none."""
    try:
        content = from_json(text(file, MAX_BYTES))
    except FileNotFoundError:
        raise FormatProblem(f"{file}: no such file") from None
    except (OSError, ValueError) as error:
        raise FormatProblem(f"{file}: not readable JSON ({str(error)[:120]})") from None
    if not isinstance(content, dict):
        raise FormatProblem(f"{file}: a JSON object is expected, found {type(content).__name__}")
    return content
