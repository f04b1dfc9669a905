"""Parquet: files of 1,000 images, a row per image: its file, its size, its boxes, and its COCO entry as JSON.

The column `image` is a struct of `bytes` and `path`, as Hugging Face's `datasets` has it. pyarrow is needed.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ...annotations import DataSet, Image
from ...errors import EnvironmentProblem, FormatProblem
from ..annotated_images import AnnotatedImage, AnnotatedImages
from ..image_files import MAX_FILE
from . import packed

SUFFIX = "parquet"
GROUP = 16
"""Rows that are read and written together."""


def _arrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise EnvironmentProblem("Parquet needs pyarrow: pip install 'cytosynth[parquet]'") from None
    return pyarrow, parquet


def _schema() -> Any:
    arrow, _ = _arrow()
    boxes = arrow.list_(arrow.list_(arrow.float64()))
    return arrow.schema([
        ("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
        ("image_id", arrow.int64()), ("width", arrow.int32()), ("height", arrow.int32()),
        ("objects", arrow.struct([("id", arrow.list_(arrow.int64())), ("category", arrow.list_(arrow.string())),
                                  ("bbox", boxes)])),
        ("coco", arrow.string()),
    ])  # fmt: skip


class Writer:
    """Writes images into the Parquet files of a folder, one after the other."""

    def __init__(self, about: DataSet, root: Path) -> None:
        """Write the set that `about` describes into the folder `root`."""
        self.about, self.root, self.encoder = about, root, packed.Encoder(about)
        self.schema = _schema()
        self.file: Any = None
        self.rows: list[dict[str, Any]] = []

    def add(self, image: Image, content: bytes) -> None:
        """Add `image`, whose file is `content`."""
        number = self.encoder.count
        if number % packed.IMAGES == 0:
            self._end()
            path = self.root / f"{number // packed.IMAGES:06d}.{SUFFIX}"
            self.file = _arrow()[1].ParquetWriter(path, self.schema, compression="none")
        packed.suffix(image.file_name)
        entry = self.encoder.encode(image)
        boxes = entry["annotations"]
        names = [self.about.categories[box["category_id"] - 1] for box in boxes]
        self.rows.append({
            "image": {"bytes": content, "path": image.file_name},
            "image_id": entry["id"], "width": image.width, "height": image.height,
            "objects": {"id": [box["id"] for box in boxes], "category": names, "bbox": [box["bbox"] for box in boxes]},
            "coco": packed.to_json(entry).decode(),
        })  # fmt: skip
        if len(self.rows) == GROUP:
            self._flush()

    def close(self) -> None:
        """Finish the last file, and write the description of the whole set."""
        self._end()
        packed.write_about(self.about, self.root)

    def _flush(self) -> None:
        if self.rows:
            self.file.write_table(_arrow()[0].Table.from_pylist(self.rows, schema=self.schema))
            self.rows = []

    def _end(self) -> None:
        self._flush()
        if self.file:
            self.file.close()


@dataclass(frozen=True)
class Row:
    """An image file in a Parquet file: its row group, and its place in that."""

    path: Path
    group: int
    row: int

    def read(self) -> bytes:
        """Return its bytes; raise FormatProblem if they cannot be read."""
        found = _column(self.path, self.group, "image.bytes")[self.row]
        content = found["bytes"] if isinstance(found, dict) else None
        if not isinstance(content, bytes) or len(content) > MAX_FILE:
            where = f"{self.path}: row group {self.group}, row {self.row}"
            raise FormatProblem(f"{where}: not an image of at most {MAX_FILE:,} bytes")
        return content


class ParquetSet(AnnotatedImages):
    """A data set in Parquet files. In memory are only how many rows each of their groups has, and one group."""

    def __init__(self, root: Path) -> None:
        """Look at the Parquet files in `root`; raise FormatProblem for what this format does not have."""
        self.about, self.categories = packed.read_about(root)
        self.groups: list[tuple[Path, int]] = []
        self.ends = [0]
        for path in packed.numbered(root, SUFFIX):
            file = _opened(path)
            for number in range(file.num_row_groups):
                self.groups.append((path, number))
                self.ends.append(self.ends[-1] + file.metadata.row_group(number).num_rows)

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.ends[-1]

    def entry(self, index: int) -> AnnotatedImage:
        """Return the image at `index`; raise FormatProblem if its annotations cannot be read."""
        number = bisect_right(self.ends, index) - 1
        path, group = self.groups[number]
        row = index - self.ends[number]
        text = _column(path, group, "coco")[row]
        if not isinstance(text, str):
            raise FormatProblem(f"{path}: row group {group}, row {row}: the column coco is not text")
        image = packed.decode(text.encode(), self.categories, path / f"{index + 1:09d}")
        return AnnotatedImage(image, path / image.file_name, Row(path, group, row))


def _opened(path: Path) -> Any:
    arrow, parquet = _arrow()
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise FormatProblem(f"{path}: not a readable Parquet file ({str(error).splitlines()[0][:120]})") from None
    if not {"image", "coco"} <= set(file.schema_arrow.names):
        raise FormatProblem(f"{path}: expected the columns image and coco")
    return file


def _column(path: Path, group: int, column: str) -> list[Any]:
    """Return the values of a `column` of a row group, of which the last two that were asked for are kept."""
    return _values(path, path.stat().st_mtime_ns, group, column)


@lru_cache(maxsize=2)
def _values(path: Path, _changed: int, group: int, column: str) -> list[Any]:
    arrow, _ = _arrow()
    with _opened(path) as file:
        try:
            table = file.read_row_group(group, columns=[column])
            return list(table.column(0).to_pylist())
        except (OSError, ValueError, IndexError, arrow.ArrowException) as error:
            raise FormatProblem(f"{path}: row group {group}: {str(error).splitlines()[0][:120]}") from None
