"""Opening image files: bounded, inside their folder, always RGB, resized the one way."""

import hashlib
import stat
import struct
import warnings
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import UserError
from ..io import atomic, plain
from ..io.progress import console

Pixels = NDArray[np.uint8]
"""(height, width, 3) RGB, 0..255."""

MAX_PIXELS = 100_000_000
"""Larger images are refused as decompression bombs; whole slides are read by tiles elsewhere."""
MAX_MEMORY = 1_000_000_000
"""Bytes that reading an image may take: what needs more is refused by its header."""
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
"""What turns an image of each orientation upright."""
MAX_SCANS = 100
"""Of a JPEG: each scan of a progressive one is a pass over the whole image, and a small file can ask for thousands."""
JPEG, SCAN = b"\xff\xd8", b"\xff\xda"
"""What a JPEG, of several images or one, and a scan of it begin with."""
MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
"""Of Pillow, at most 8 bits a sample; of greys with more it would call white what is above 255."""
BLOCK = 1 << 20
"""Bytes read, and pixels made RGB, at a time."""
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
"""Names that are devices, not files, on Windows, whatever follows their first dot."""
BROKEN = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, NotImplementedError, RuntimeError, MemoryError, SystemError, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow raises on broken files."""

LONGEST = 180
"""Bytes of the name of a file to be, without its suffix and what is added while it is written."""
LEAVES = "a link that leaves its folder"


class ImageProblem(UserError):
    """An image file that cannot be used; the message says why."""


def unsafe(file_name: str) -> str | None:
    """Return why `file_name` may not be joined to a folder, or None when it may."""
    if not file_name or "\0" in file_name:
        return "empty or with a NUL byte"
    if plain.CONTROL.search(file_name):
        return "with control characters or half a character"
    if "\\" in file_name or ":" in file_name:
        return "with a backslash or a drive letter"
    path = PurePosixPath(file_name)
    if path.is_absolute():
        return "absolute"
    if ".." in path.parts:
        return "leaves its folder"
    if not path.name:
        return "names a folder"
    if any(len(part.encode()) > 200 for part in path.parts) or len(file_name) > 1000:
        return "longer than files can be called"
    for part in path.parts:
        if part.split(".")[0].strip().lower() in DEVICES:
            return "the name of a device"
    return None


def usable(found: Iterable[tuple[str, Path]], folder: Path) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return those of the names and paths `found` that stay inside `folder`, and a line for each other one.

    The lines may be written: they tell no folder of this machine.
    """
    good, refused = [], []
    for name, path in found:
        if reason := unsafe(name):
            bare = PureWindowsPath(name)  # whose root may be written in either way
            refused.append(f"file name {(bare.name if bare.anchor else name)[:200]!r}: {reason}")
        elif _leaves(folder, name):
            refused.append(f"{name}: {LEAVES}")
        else:
            good.append((name, path))
    return good, refused


def beside(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> list[tuple[str, Path]]:
    """Return name and path of each file in `folder` itself of one of `suffixes`, in order.

    Raises UserError where there is none.
    """
    inside = sorted(folder.iterdir())
    found = [(path.name, path) for path in inside if path.suffix.lower() in suffixes and not path.is_dir()]
    below = [path.name for path in inside if path.is_dir() and not path.name.startswith(".")]
    left = f"; the folders in it are not searched ({below[0][:80]}{', ...' if len(below) > 1 else ''})" if below else ""
    if not found:
        raise UserError(f"{folder}: no image there ({', '.join(sorted(suffixes))}){left}")
    if left:
        console.print(f"{folder}{left.replace(';', ':', 1)}", soft_wrap=True)
    return found


def flat(original: str, suffix: str, taken: set[str]) -> str:
    """Return a file name ending in `suffix` for what is made of `original`, which may lie in folders.

    It is none of those `taken`, and is added to them.
    """
    name = PurePosixPath(original).with_suffix("").as_posix().replace("/", "_")
    if len(name.encode()) > LONGEST:
        digest = hashlib.sha256(original.encode()).hexdigest()[:16]
        name = f"{name.encode()[: LONGEST - 20].decode(errors='ignore')}-{digest}"
    name += suffix
    while name in taken:
        name = "_" + name
    taken.add(name)
    return name


def inside(folder: Path, file_name: str) -> Path:
    """Return `folder / file_name`; raise ImageProblem if that leaves `folder`, also through a link."""
    reason = unsafe(file_name)
    if reason:
        raise ImageProblem(f"{folder}: file name {file_name[:200]!r}: {reason}")
    if _leaves(folder, file_name):
        raise ImageProblem(f"{folder / file_name}: {LEAVES}")
    return folder / file_name


def _leaves(folder: Path, file_name: str) -> bool:
    """Return whether `file_name`, a safe name, is or passes a link that leaves `folder`."""
    try:
        return not (folder / file_name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        return True


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the image file at `path`, nothing where it is none or too large: `read` then says so."""
    try:
        return atomic.fingerprint(path) if path.stat().st_size <= MAX_FILE else ""
    except OSError:
        return ""


def size(path: Path) -> tuple[int, int]:
    """Return (width, height) from the header of the image at `path`, as it stands after EXIF rotation."""
    with _open(path) as image:
        try:
            width, height = image.size
            turn = _orientation(image)
            if isinstance(image, TiffImageFile):  # some versions of Pillow say its size as turned, some as stored
                width, height = (int(image.tag_v2[tag]) for tag in (256, 257))
                turn = image.tag_v2.get(ORIENTATION, 1)
        except BROKEN as error:
            raise _problem(path, error) from None
        return (height, width) if turn in (5, 6, 7, 8) else (width, height)


def other_size(path: Path, found: tuple[int, int], annotated: tuple[int, int]) -> str:
    """Return in words that the image at `path` has another width and height than those `annotated`."""
    turned = "; its EXIF orientation turns it, and boxes are of the upright image" if found == annotated[::-1] else ""
    return f"{path}: is {found[0]}x{found[1]}, annotated as {annotated[0]}x{annotated[1]}{turned}"


def _orientation(image: Image.Image) -> int:
    """Return how EXIF says that the opened `image` is turned; a PNG says it before its pixels, or not at all."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return int(image.getexif().get(ORIENTATION, 1))


def read(path: Path, scale: float = 1.0) -> Pixels:
    """Return the pixels of the image at `path`, upright, resized by `scale` (Lanczos).

    Raises ImageProblem, with the path and the reason, for a file that is missing, truncated, not an
    image, or larger than MAX_PIXELS.
    """
    try:
        pixels = _rgb(_upright(path))
    except Image.DecompressionBombError:
        raise ImageProblem(f"{path}: a decompression bomb") from None
    except BROKEN as error:
        raise _problem(path, error, decoded=True) from None
    if scale != 1.0:
        width, height = (max(1, round(side * scale)) for side in pixels.shape[1::-1])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    return pixels


def _upright(path: Path) -> Image.Image:
    """Return the decoded image at `path`, upright, in its own mode; where it is turned it is there twice meanwhile."""
    with _open(path) as image:
        turned = isinstance(image, TiffImageFile) or _orientation(image) in TURNS
        image.load()  # Pillow may turn a TIFF while it loads, and then forgets the orientation
        turn = TURNS.get(_orientation(image)) if turned else None
        return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Pixels:
    """Return `image` as RGB, made so some rows at a time: whole, it would be there three times."""
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows = max(1, BLOCK // image.width)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(part.convert("RGB"))
    return pixels


def _open(path: Path) -> Image.Image:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ImageProblem(f"{path}: not a regular file")
        if state.st_size > MAX_FILE:
            raise ImageProblem(f"{path}: {state.st_size:,} bytes, more than {MAX_FILE:,}")
        scans = _scans(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path, formats=FORMATS)
        memory = _memory(image, state.st_size)
    except FileNotFoundError:
        raise ImageProblem(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise ImageProblem(f"{path}: a decompression bomb") from None
    except BROKEN as error:
        raise _problem(path, error) from None
    if scans > MAX_SCANS:
        image.close()
        raise ImageProblem(f"{path}: more than {MAX_SCANS} scans (a bomb?)")
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageProblem(f"{path}: {image.width}x{image.height} pixels, more than {MAX_PIXELS:,} (a bomb?)")
    if image.mode not in MODES:
        image.close()
        raise ImageProblem(f"{path}: more than 8 bits a grey level, and not said which is white; save it with 8")
    if memory > MAX_MEMORY:
        image.close()
        raise ImageProblem(f"{path}: reading it takes {memory:,} bytes, more than {MAX_MEMORY:,} (a bomb?)")
    return image


def _scans(path: Path) -> int:
    """Return how many scans the JPEG at `path` has, counting no further than MAX_SCANS are passed; 0 for no JPEG."""
    scans, end = 0, b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            if not end and not block.startswith(JPEG):
                return 0
            scans += (end + block).count(SCAN)
            if scans > MAX_SCANS:
                break
            end = block[-1:]
    return scans


def _memory(image: Image.Image, size: int) -> int:
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


def _problem(path: Path, error: BaseException, decoded: bool = False) -> ImageProblem:
    """Return what `error` says of the image at `path`, of which the header was read, or all was to be `decoded`.

    Raises MemoryError where the machine refuses what reading it takes: of that, decoders say many things.
    """
    need = ROOM
    if decoded:
        with suppress(UserError), _open(path) as image:
            need += _memory(image, path.stat().st_size)
    np.empty(need, dtype=np.uint8)
    text = str(error).split("\n")[0].lower()
    broken = "truncated" in text or "broken" in text
    return ImageProblem(f"{path}: {'truncated' if broken else 'not a readable image'}")
