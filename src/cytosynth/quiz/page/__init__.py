"""The quiz page: one HTML file that holds its style, its script and its images, and asks nothing of a network."""

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from PIL import Image

from ...data.image_files import Pixels

NOT_FOR_DIAGNOSIS = "For teaching and research. Not for diagnosis."


def plain_png(pixels: Pixels) -> str:
    """Return `pixels` as a `data:` address of a PNG without compression or metadata.

    So every image of one size has the same number of bytes: what compresses well, as smooth synthetic cells do, cannot
    be told by it.
    """
    return data_address(png_bytes(pixels, compression=0))


def png_bytes(pixels: Pixels, compression: int = 6) -> bytes:
    """Return `pixels` as a PNG without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=compression)
    return buffer.getvalue()


def data_address(png: bytes) -> str:
    """Return the `data:` address of a PNG."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def text(title: str, content: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """Return the page as HTML.

    Its policy lets it load nothing from anywhere, and run no script but its own, which is identified by its hash.

    Args:
        title: of the page.
        content: what the script needs, as JSON (see `page.js`).
        notes: paragraphs of the introduction.
    """
    room = files(__name__)
    style, script = (room.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    data = json.dumps({**content, "title": title, "notes": [*notes, NOT_FOR_DIAGNOSIS]}, ensure_ascii=False)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    html = room.joinpath("page.html").read_text(encoding="utf-8")
    parts = {"TITLE": _escaped(title), "POLICY": policy, "STYLE": style, "SCRIPT": script}
    for name, value in parts.items():
        html = html.replace(f"{{{{{name}}}}}", value)
    return html.replace("{{DATA}}", data.replace("<", "\\u003c"))


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _escaped(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
