"""Opening image files: bounded, inside their folder, always RGB, always resized in the same way."""

import io
import stat
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import UserError
from ..io import atomic
from .file_names import ImageProblem as ImageProblem

Pixels = NDArray[np.uint8]
"""(height, width, 3) RGB, 0..255."""

MAX_PIXELS = 100_000_000
"""Larger images are refused as decompression bombs; whole slides are read by tiles elsewhere."""
MAX_MEMORY = 1_000_000_000
"""Maximum memory for reading an image, bytes; larger ones are refused by their header."""
ROOM = 64 << 20
"""Bytes that a machine has left which reads images; where it has not, no image is called broken."""
MAX_FILE = 320_000_000
"""Bytes of an image file, of which Pillow may hold three copies: as many pixels as are read, three bytes each."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
ORIENTATION = 0x0112
"""EXIF's tag."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""The operation that turns an image of each orientation upright."""
MAX_SCANS = 100
"""Of a JPEG: each scan of a progressive one is a pass over the whole image, and a small file can ask for thousands."""
JPEG, SCAN = b"\xff\xd8", b"\xff\xda"
"""What a JPEG, of several images or one, and a scan of it begin with."""
MAX_PAGES = 100
"""Of a TIFF, in which the largest page is sought: the first may be a thumbnail."""
SMALLER_OR_MASK = 1 | 4
"""Bits of TIFF's NewSubfileType: a page that shows another one smaller, or masks it."""
MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
"""Of Pillow, at most 8 bits a sample; of greys with more it would call white what is above 255."""
WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
BLOCK = 1 << 20
"""Bytes read, and pixels made RGB, at a time."""
BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, NotImplementedError, RuntimeError, MemoryError, SystemError, struct.error, zlib.error,
)  # fmt: skip
"""Exceptions that Pillow raises on broken files."""


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the image file at `path`, nothing if it is none or too large: `read` then says so."""
    try:
        return atomic.fingerprint(path) if path.stat().st_size <= MAX_FILE else ""
    except OSError:
        return ""


def size(path: Path, content: bytes | None = None) -> tuple[int, int]:
    """Return (width, height) from the header of the image at `path`, after EXIF rotation.

    Where its `content` is given, from inside a larger file, `path` only names it.
    """
    with _open(path, content) as image:
        try:
            width, height = image.size
            turn = _turn(image)
            if isinstance(image, TiffImageFile):  # some versions of Pillow say its size as turned, some as stored
                width, height = (int(image.tag_v2[tag]) for tag in (256, 257))
        except BROKEN as error:
            raise _problem(path, error) from None
        return (height, width) if turn in (5, 6, 7, 8) else (width, height)


def note(path: Path, key: str, content: bytes | None = None) -> str:
    """Return the text of the chunk `key` before the pixels of the PNG at `path`, "" if it has none or cannot be opened.

    Where its `content` is given, from inside a larger file, `path` only names it.
    """
    if path.suffix.lower() != ".png":
        return ""
    try:
        with _open(path, content) as image:
            found = image.info.get(key)
    except ImageProblem:
        return ""
    return found if isinstance(found, str) else ""


def same_size(path: Path, annotated: tuple[int, int], said: str = "") -> None:
    """Raise ImageProblem, which ends in what is `said`, where the image at `path` is not of the size `annotated`."""
    found = size(path)
    if found != annotated:
        raise ImageProblem(f"{other_size(path, found, annotated)}{said}")


def other_size(path: Path, found: tuple[int, int], annotated: tuple[int, int]) -> str:
    """Return a message that the image at `path` has another width and height than those `annotated`."""
    why = ""
    if found == annotated[::-1] and path.is_file():
        with _open(path) as image:
            turned = _turn(image) in (5, 6, 7, 8)
        why = "; its EXIF orientation turns it, and boxes are of the upright image" if turned else "; they are swapped"
    return f"{path}: is {found[0]}x{found[1]}, annotated as {annotated[0]}x{annotated[1]}{why}"


def _turn(image: Image.Image) -> int:
    """Return the orientation of the opened `image` as it is stored."""
    if isinstance(image, TiffImageFile):  # some versions of Pillow forget it once the image is turned
        return int(image.tag_v2.get(ORIENTATION, 1))
    return _orientation(image)


def _orientation(image: Image.Image) -> int:
    """Return how EXIF says that the opened `image` is turned; a PNG says it before its pixels, or not at all."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(ORIENTATION, 1))


def read(path: Path, scale: float = 1.0, content: bytes | None = None) -> Pixels:
    """Return the pixels of the image at `path`, upright, resized by `scale` (Lanczos).

    Where its `content` is given, from inside a larger file, `path` only names it. Raises ImageProblem, with the path
    and the reason, for a file that is missing, truncated, not an image, or larger than MAX_PIXELS.
    """
    try:
        pixels = _rgb(_upright(path, content), path)
    except Image.DecompressionBombError:
        raise ImageProblem(f"{path}: a decompression bomb") from None
    except BROKEN as error:
        raise _problem(path, error, decoded=True, content=content) from None
    if scale != 1.0:
        width, height = (max(1, round(side * scale)) for side in pixels.shape[1::-1])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    return pixels


def _upright(path: Path, content: bytes | None) -> Image.Image:
    """Return the decoded image at `path`, upright, in its own mode; turning it needs its memory twice."""
    with _open(path, content) as image:
        turned = isinstance(image, TiffImageFile) or _orientation(image) in TURNS
        image.load()  # Pillow may turn a TIFF while it loads, and then forgets the orientation
        turn = TURNS.get(_orientation(image)) if turned else None
        return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image, path: Path) -> Pixels:
    """Return `image` as RGB, on white where it is transparent.

    It is converted some rows at a time: as a whole it would need its memory three times. Raises ImageProblem, naming
    `path`, where nothing of it is visible.
    """
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows, clear = max(1, BLOCK // image.width), image.mode in WITH_ALPHA or "transparency" in image.info
    hidden = clear
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        if clear:
            part = part.convert("RGBA")
            hidden = hidden and part.getextrema()[3] == (0, 0)
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        pixels[top : top + rows] = np.asarray(part.convert("RGB"))
    if hidden:
        raise ImageProblem(f"{path}: is fully transparent; save it without transparency")
    return pixels


def _open(path: Path, content: bytes | None = None) -> Image.Image:
    try:
        size = _bytes(path, content)
        if size > MAX_FILE:
            raise ImageProblem(f"{path}: {size:,} bytes, more than {MAX_FILE:,}")
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            scans = _scans(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path if content is None else io.BytesIO(content), formats=FORMATS)
            if isinstance(image, TiffImageFile):
                _seek_image(image, path)
        memory = memory_needed(image, size)
    except FileNotFoundError:
        raise ImageProblem(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise ImageProblem(f"{path}: a decompression bomb") from None
    except BROKEN as error:
        raise _problem(path, error) from None
    if scans > MAX_SCANS:
        image.close()
        raise ImageProblem(f"{path}: more than {MAX_SCANS} scans (a decompression bomb?)")
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageProblem(
            f"{path}: {image.width}x{image.height} pixels, more than {MAX_PIXELS:,} (a decompression bomb?)"
        )
    if image.mode not in MODES:
        image.close()
        raise ImageProblem(f"{path}: more than 8 bits per pixel, so the white level is unknown; save it with 8 bits")
    if memory > MAX_MEMORY:
        image.close()
        raise ImageProblem(f"{path}: decoding needs {memory:,} bytes, more than {MAX_MEMORY:,} (a decompression bomb?)")
    return image


def _seek_image(image: TiffImageFile, path: Path) -> None:
    """Turn the opened TIFF `image` at `path` to its largest page.

    Raises ImageProblem if two pages are the largest, or samples have more than 8 bits: white may be 4095 or 65535.
    """
    sizes: list[int] = []
    for page in range(MAX_PAGES + 1):
        try:
            image.seek(page)
        except EOFError:
            break
        except Image.DecompressionBombError:
            raise
        except BROKEN:
            if not page:
                raise
            break  # what comes after the last page is of no interest
        shown = not page or not int(image.tag_v2.get(254, 0)) & SMALLER_OR_MASK
        sizes.append(image.width * image.height if shown else 0)
    largest = max(sizes)
    if len(sizes) > MAX_PAGES or sizes.count(largest) > 1:
        image.close()
        raise ImageProblem(f"{path}: {len(sizes)} pages, none of which is the largest; save the page to use as a file")
    image.seek(sizes.index(largest))
    if image.mode in MODES and max(image.tag_v2.get(258, (1,))) > 8:
        image.close()
        raise ImageProblem(f"{path}: more than 8 bits per channel, so the white level is unknown; save it with 8 bits")


def _bytes(path: Path, content: bytes | None) -> int:
    """Return how long the file at `path` is, or its `content`; raise ImageProblem for what is no regular file."""
    if content is not None:
        return len(content)
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ImageProblem(f"{path}: not a regular file")
    return state.st_size


def _scans(file: BinaryIO) -> int:
    """Return how many scans the JPEG `file` has, counting no further than MAX_SCANS are passed; 0 for no JPEG."""
    scans, end = 0, b""
    while block := file.read(BLOCK):
        if not end and not block.startswith(JPEG):
            return 0
        scans += (end + block).count(SCAN)
        if scans > MAX_SCANS:
            break
        end = block[-1:]
    return scans


def memory_needed(image: Image.Image, size: int) -> int:
    """Return how many bytes reading the opened `image` of `size` bytes takes at most, its decoder's among them."""
    pixels: int = image.width * image.height
    if isinstance(image, TiffImageFile):  # a whole strip or tile, as stored, and a copy where Pillow turns it
        tags = image.tag_v2
        stored: int = max(pixels, tags.get(322, 0) * tags.get(323, 0)) * sum(tags.get(258, (1,))) // 8
        return (4 if tags.get(ORIENTATION, 1) < 5 else 8) * pixels + stored
    if image.format == "WEBP":  # as measured
        return 16 * pixels + 2 * size
    if image.info.get("progressive"):  # each coefficient of each colour
        return (4 + 2 * len(image.getbands())) * pixels
    return 8 * pixels


def _problem(path: Path, error: BaseException, decoded: bool = False, content: bytes | None = None) -> ImageProblem:
    """Return the problem of the image at `path` that raised `error` while its header was read, or all was `decoded`.

    Raises MemoryError if memory was refused, which decoders report in various ways.
    """
    need = ROOM
    if decoded:
        with suppress(UserError), _open(path, content) as image:
            need += memory_needed(image, _bytes(path, content))
    np.empty(need, dtype=np.uint8)
    text = str(error).split("\n")[0].lower()
    broken = "truncated" in text or "broken" in text
    return ImageProblem(f"{path}: {'truncated' if broken else 'not a readable image'}")
