"""The places and encodings of VOC's files in the layouts of the tools that write them: XML, images, parts."""

import codecs
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from defusedxml.ElementTree import fromstring

from ...io import plain
from .. import file_names, gather
from . import names

DECLARED = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["'][^>]{0,100}?\?>""")
ENCODINGS = re.compile(
    r"utf-?8|utf-?16(-[bl]e)?|ascii|(iso8859|cp125|cp93|cp94|cp95|cp86)-?\w+|gb2312|gbk|gb18030|big5|euc_jp|euc_kr|shift_jis|koi8-[ru]"
)
"""Encodings of Python, by its own names, in which an XML file may be."""
SUPERVISION = ("VOC", "roboflow.ai")
"""Folder and database in the XML files that supervision writes; what Roboflow itself writes has another folder."""


def annotations(root: Path) -> Path:
    """Return the folder of the XML files of the data set at `root`; `Annotations` if there is none anywhere."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    for wanted in ("annotations", "labels"):
        for path in inside:
            if path.name.lower() == wanted and path.is_dir() and (wanted == "annotations" or files(path)):
                return path
    if any(path.suffix.lower() == ".xml" for path in gather.files(root, depth=1)):
        return root
    return root / "Annotations"


def images(root: Path, place: Path) -> Path:
    """Return the folder of the images of the data set at `root`, whose XML files are in `place`."""
    if place == root:
        return root
    for name in ("JPEGImages", "images", "data"):
        if (root / name).is_dir():
            return root / name
    return root


def files(place: Path) -> list[Path]:
    """Return the XML files below the folder `place`, in order."""
    return [path for path in gather.files(place) if path.suffix.lower() == ".xml"]


def parse(file: Path) -> ET.Element:
    """Return the root of the XML in `file`, in the encoding that it declares.

    Raises ValueError or ParseError for what is no XML, or in an encoding that is unknown or another than declared.
    """
    content = plain.content(file)
    if content.startswith(codecs.BOM_UTF8) or not (declared := DECLARED.match(content.lstrip())):
        root: ET.Element = fromstring(content.decode("utf-8-sig").encode() if not _wide(content) else content)
        return root
    name = declared[1].decode()
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        raise ValueError(f"unknown encoding {name!r}") from None
    if not ENCODINGS.fullmatch(codec):
        raise ValueError(f"{name!r} is not a text encoding")
    text = content.decode(codec)
    found: ET.Element = fromstring(text[text.index("?>") + 2 :].lstrip().encode())
    return found


def _wide(content: bytes) -> bool:
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def first_pixel(tree: ET.Element) -> int:
    """Return the number of an image's first pixel in the first corners of boxes: 1 as supervision writes it, else 0.

    It counts pixels from 1 and includes the last, as Pascal VOC did: its last corners are as they are elsewhere.
    """
    return int((tree.findtext("folder"), tree.findtext("source/database")) == SUPERVISION)


def image_name(said: str | None, xml: str, there: names.Folder) -> str:
    """Return the name of the image of the annotation file `xml`, which calls it `said`, among those `there`.

    The name may be that of a file next to the XML's place, without its suffix or with another one, or missing: then the
    image is the one that is called as the XML file.
    """
    name = names.file_name(said.strip()) if said and said.strip() else ""
    if name and file_names.unsafe(name):
        return name
    stem = PurePosixPath(xml).with_suffix("")
    beside = (stem.parent / name).as_posix()
    own = [name, beside] if "/" in name else [beside, name]
    choices = [*dict.fromkeys(own if name else ()), stem.as_posix()]
    for by_stem in (False, True):
        for choice in choices:
            found = there.find(choice, by_stem)
            if there.has(found) and (by_stem or choice != stem.as_posix()):
                return found
    if not name:
        raise ValueError("filename is missing")
    return name


def parts(root: Path, images: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the file names of the parts of the data set at `root`; `images` are by the paths of their XML's stem.

    They are as `ImageSets/Main` lists them, or as folders are called.
    """
    result: dict[str, list[str]] = {}
    lists = root / "ImageSets" / "Main"
    for file in sorted(lists.glob("*.txt")) if lists.is_dir() else []:
        if part := names.PARTS.get(file.stem.lower()):
            try:
                lines = plain.text(file, plain.MAX_BYTES).split("\n")
            except (OSError, ValueError):
                continue
            known = (images.get(names.stem(f"{line.strip()}.x")) or images.get(line.strip()) for line in lines)
            result.setdefault(part, []).extend(name for name in known if name)
    if not result:
        for stem, name in images.items():
            folders = PurePosixPath(stem).parts[:-1]
            if part := next((names.PARTS[f.lower()] for f in folders if f.lower() in names.PARTS), ""):
                result.setdefault(part, []).append(name)
    return {part: tuple(dict.fromkeys(members)) for part, members in result.items()}
