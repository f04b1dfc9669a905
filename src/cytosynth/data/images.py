"""Opening image files: bounded, inside their folder, always RGB, resized the one way."""

import warnings
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import UserError

Pixels = NDArray[np.uint8]
"""(height, width, 3) RGB, 0..255."""

MAX_PIXELS = 100_000_000
"""Larger images are refused as decompression bombs; whole slides are read by tiles elsewhere."""
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")


class ImageProblem(UserError):
    """An image file that cannot be used; the message says why."""


def unsafe(file_name: str) -> str | None:
    """Return why `file_name` may not be joined to a folder, or None when it may."""
    if not file_name or "\0" in file_name:
        return "empty or with a NUL byte"
    if "\\" in file_name or ":" in file_name:
        return "with a backslash or a drive letter"
    path = PurePosixPath(file_name)
    if path.is_absolute():
        return "absolute"
    if ".." in path.parts:
        return "leaves its folder"
    return None


def inside(folder: Path, file_name: str) -> Path:
    """Return `folder / file_name`; raise ImageProblem if that leaves `folder`, also through a link."""
    reason = unsafe(file_name)
    if reason:
        raise ImageProblem(f"{folder}: file name {file_name[:200]!r}: {reason}")
    path = folder / file_name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ImageProblem(f"{path}: a link that leaves {folder}")
    return path


def size(path: Path) -> tuple[int, int]:
    """Return (width, height) from the header of the image at `path`, as it stands after EXIF rotation."""
    with _open(path) as image:
        width, height = image.size
        if image.format == "PNG" and "exif" not in image.info:
            return width, height
        try:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
            raise ImageProblem(f"{path}: {_reason(error)}") from None
        return (height, width) if turned else (width, height)


def read(path: Path, scale: float = 1.0) -> Pixels:
    """Return the pixels of the image at `path`, upright, resized by `scale` (Lanczos).

    Raises ImageProblem, with the path and the reason, for a file that is missing, truncated, not an
    image, or larger than MAX_PIXELS.
    """
    with _open(path) as image:
        try:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
            raise ImageProblem(f"{path}: {_reason(error)}") from None
    if scale != 1.0:
        width, height = (max(1, round(side * scale)) for side in upright.size)
        upright = upright.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(upright)


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path, formats=FORMATS)
    except FileNotFoundError:
        raise ImageProblem(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise ImageProblem(f"{path}: a decompression bomb") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise ImageProblem(f"{path}: {_reason(error)}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ImageProblem(f"{path}: {image.width}x{image.height} pixels, more than {MAX_PIXELS:,} (a bomb?)")
    return image


def _reason(error: BaseException) -> str:
    text = str(error).split("\n")[0].lower()
    if "truncated" in text or "broken" in text:
        return "truncated"
    return "not a readable image"
