"""GeoJSON as QuPath reads it (File, Import objects): one detection object for each cell, with its class and score."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...annotations import Cell
from ...bethesda import colour
from ...io import atomic


def encode(cells: Sequence[Cell], name: str) -> dict[str, Any]:
    """Return `cells` as a GeoJSON FeatureCollection (RFC 7946), in pixels of the image called `name`, y downwards."""
    return {"type": "FeatureCollection", "features": [_feature(c, f"{name}/{i}") for i, c in enumerate(cells, 1)]}


def write(cells: Sequence[Cell], name: str, path: Path, description: str = "") -> None:
    """Write the `cells` of the image called `name` to `path`, atomically, a feature a line: slides have many.

    A `description` of the whole, such as the mark of synthetic images, is a member of its own.
    """
    features = (json.dumps(_feature(c, f"{name}/{i}"), ensure_ascii=False) for i, c in enumerate(cells, 1))
    body = ",\n".join(features)
    mark = f'"description": {json.dumps(description)}, ' if description else ""
    atomic.write_text(path, f'{{"type": "FeatureCollection", {mark}"features": [\n{body}\n]}}\n')


def _feature(cell: Cell, key: str) -> dict[str, Any]:
    x0, y0, x1, y1 = cell.box
    properties: dict[str, Any] = {
        "objectType": "detection",
        "classification": {"name": cell.category, "color": list(colour(cell.category))},
    }
    measured = {} if cell.score is None else {"Score": cell.score}
    measured |= cell.extra.get("measurements", {})
    if measured:
        properties["measurements"] = measured
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, key)),  # QuPath takes none but UUIDs
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
