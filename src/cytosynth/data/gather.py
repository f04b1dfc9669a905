"""The images of a folder and its subfolders, without files left by other systems."""

from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..io.progress import console
from . import file_names
from .image_files import SUFFIXES
from .slides.reader import SLIDES

LITTER = frozenset({"__macosx", "@eadir", "thumbs.db", "desktop.ini"})
"""Files and folders that other systems create."""
OTHERS = frozenset(
    {".gif", ".jp2", ".j2k", ".jpx", ".jpf", ".avif", ".heic", ".heif", ".jxl", ".psd", ".dng", ".nef", ".cr2", ".ppm"}
)
"""Images of kinds that are not read."""
DEEPEST = 64


def litter(path: Path) -> bool:
    """Return whether the file or folder `path` is hidden or another system's own, such as `._a.jpg`."""
    return path.name.startswith(".") or path.name.lower() in LITTER


def files(root: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """Yield the files below the folder `root`, at most `depth` folders down, in order; links are not followed down."""
    try:
        inside = sorted(root.iterdir())
    except OSError:
        return
    for path in inside:
        if litter(path):
            continue
        if not path.is_dir():
            yield path
        elif depth > 0 and not path.is_symlink():
            yield from files(path, depth - 1)


def images(root: Path) -> Iterator[str]:
    """Yield the names of the image files below `root`, in order."""
    for path in files(root):
        if path.suffix.lower() in SUFFIXES:
            yield path.relative_to(root).as_posix()


def gathered(folder: Path, recursive: bool = False, slides: bool = False) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return name and path of each image in `folder`, and a line for each file that is an image of a kind not read.

    With `recursive` those in the folders below it count too, and are called by their path there; with `slides`, slides
    are among those that are read.
    """
    found, refused = [], []
    kinds = SUFFIXES | SLIDES if slides else SUFFIXES
    for path in files(folder, DEEPEST if recursive else 0):
        name, suffix = path.relative_to(folder).as_posix(), path.suffix.lower()
        if suffix in kinds:
            found.append((name, path))
        elif suffix in SLIDES:
            refused.append(f"{name}: is a slide ({suffix}); cut it into fields with `cytosynth tiles`")
        elif suffix in OTHERS:
            refused.append(f"{name}: {suffix} images are not supported; save it as PNG")
    return found, refused


def beside(folder: Path, recursive: bool = False, slides: bool = False) -> tuple[list[tuple[str, Path]], list[str]]:
    """Return what `gathered` does, without names that cannot be used, which get a line too.

    Raises UserError if there is no image; says where folders are not searched.
    """
    found, refused = gathered(folder, recursive, slides)
    inside = sorted(folder.iterdir())
    below = [path.name for path in inside if path.is_dir() and not litter(path)]
    left = ""
    if below and not recursive:
        more = ", ..." if len(below) > 1 else ""
        left = f"subfolders are not searched ({below[0][:80]}{more}); use --recursive"
    if not found:
        reasons = [*refused[:1], *([left] if left else [])]
        known = ", ".join(sorted(SUFFIXES | SLIDES if slides else SUFFIXES))
        raise UserError(f"{folder}: contains no image ({known}){''.join(f'; {reason}' for reason in reasons)}")
    if left:
        console.print(f"{folder}: {left}", markup=False, soft_wrap=True)
    good, unusable = file_names.usable(found, folder)
    return good, [*refused, *unusable]
