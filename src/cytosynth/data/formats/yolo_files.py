"""The places of YOLO's files in the layouts of the tools that write them: classes, images, labels, parts, licence."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import FormatProblem
from ...io import plain
from .. import gather
from . import findings, names
from .findings import Note

YAML = (".yaml", ".yml")
PARTS = ("train", "val", "test")
CLASSES = ("classes.txt", "obj.names", "labels/classes.txt", "_darknet.labels", "labels.txt")
"""Lists of class names, one per line."""
NO_LABELS = re.compile(
    r"(classes|train|val|valid|test|images|notes|requirements|readme.*|licen[cs]e.*|obj_?names|labels)\.txt",
    re.IGNORECASE,
)
"""Text files next to images or labels that contain no boxes."""
BOXES = re.compile(r"\s*\d+(\.\d+)?(\s+[-+.\deE]+){4,}\s*")
"""What a line of a label looks like."""
FEW = 4096
"""Characters in which a file that is none of these shows that it is a label."""


def classes(root: Path, annotations: Path | None = None) -> Path:
    """Return the file that names the classes of the data set in the folder `root`; `data.yaml` where none does."""
    if annotations and annotations.is_file():
        return annotations
    if (root / "data.yaml").exists():
        return root / "data.yaml"
    inside = sorted(root.iterdir()) if root.is_dir() else []
    for path in inside:
        if path.suffix.lower() in YAML and path.is_file() and names_classes(path):
            return path
    places = [annotations, root] if annotations else [root]
    found = [place / name for place in places for name in CLASSES if (place / name).is_file()]
    if not found:
        found = [path for path in gather.files(root, depth=1) if path.name == "_darknet.labels"]
    if not found and not (root / "data.yaml").exists():
        raise FormatProblem(
            f"{root / 'data.yaml'}: no such file; it lists the classes of a YOLO data set (as does classes.txt)"
        )
    return found[0]


def names_classes(path: Path) -> bool:
    """Return whether the YAML file at `path` names classes."""
    try:
        content = plain.from_yaml(plain.text(path))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "names" in content


def image_folder(root: Path) -> Path:
    """Return the folder of the images of the data set at `root`: `images`, or `root` where they lie elsewhere."""
    usual = root / "images"
    if usual.is_dir() and (any(gather.images(usual)) or not any(gather.images(root))):
        return usual
    return root


def texts(root: Path, annotations: Path | None) -> dict[str, Path]:
    """Return the label files below `root`, or in the folder `annotations`, by their path there without suffix."""
    found = {}
    linked = root / "labels" if (root / "labels").is_symlink() and not annotations else None
    for path in [*gather.files(annotations or root), *(gather.files(linked) if linked else ())]:
        if path.suffix.lower() != ".txt" or path.name in CLASSES:
            continue
        place = path.relative_to(annotations or root)
        if annotations or "labels" in place.parts[:-1] or (not NO_LABELS.fullmatch(path.name) and _is_label(path)):
            found[names.stem(place.as_posix())] = path
    return found


def _is_label(path: Path) -> bool:
    """Return whether the first line of the text file at `path` is a box, or there is nothing in it."""
    if path.is_symlink():
        return False
    try:
        first = plain.text(path)[:FEW].splitlines()[:1]
    except (OSError, ValueError):
        return False
    return not first or BOXES.fullmatch(first[0]) is not None


def label(folder: Path, name: str, found: Mapping[str, Path]) -> Path | None:
    """Return which of the label files `found` is that of the image `name` in `folder`.

    It lies next to the image, in the folder `labels` for `images`, or has the same place in a folder of labels.
    """
    stem = names.stem(name)
    top = folder.name if folder.name == "images" else ""
    whole = f"{top}/{stem}" if top else stem
    choices = [whole, stem]
    parts = list(PurePosixPath(whole).parts)
    for place in reversed([index for index, part in enumerate(parts[:-1]) if part == "images"]):
        choices.append("/".join([*parts[:place], "labels", *parts[place + 1 :]]))
    choices += [f"labels/{stem}"]
    return next((found[choice] for choice in choices if choice in found), None)


def parts(
    root: Path, content: Mapping[str, Any], folder: Path, images: Sequence[str], note: Note
) -> dict[str, tuple[str, ...]]:
    """Return the file names of the parts of a data set at `root`, whose `images` lie in `folder`.

    They are as the YAML's `content` says (folders, or lists of images), as lists next to it say (`train.txt`), or as
    the folders of the images are called.
    """
    known: dict[str, list[str]] = {}
    for name in images:
        known.setdefault(names.stem(_from(root, folder, name)), []).append(name)
    result: dict[str, list[str]] = {}
    for part in PARTS:
        given = content.get(part)
        places = given if isinstance(given, list) else [given] if isinstance(given, str) else []
        for place in places:
            if isinstance(place, str) and place:
                members = _members(root, str(content.get("path") or "."), place, known)
                if members is None:
                    note(findings.IGNORED, f"{part}: {place[:120]}: no such folder or list below {root}")
                    continue
                result.setdefault(part, []).extend(members)
    if not result:
        for file in sorted(root.glob("*.txt")):
            if file.stem.lower() in names.PARTS and (listed := _listed(file, known)):
                result.setdefault(names.PARTS[file.stem.lower()], []).extend(listed)
    if not result:
        for key, members in known.items():
            folders = PurePosixPath(key).parts[:-1]
            if part := next((names.PARTS[f.lower()] for f in folders if f.lower() in names.PARTS), ""):
                result.setdefault(part, []).extend(members)
    found = {part: tuple(dict.fromkeys(members)) for part, members in result.items() if members}
    whole = set(images)
    if found and all(set(members) == whole for members in found.values()) and len(found) > 1:
        return {}  # `train: images, val: images` divides nothing
    if set(found) == {"train"} and set(found["train"]) == whole and set(content) & {"val", "test"}:
        return {}
    return found


def _from(root: Path, folder: Path, name: str) -> str:
    return (folder / name).relative_to(root).as_posix() if folder.is_relative_to(root) else name


def _members(root: Path, path: str, place: str, known: Mapping[str, list[str]]) -> list[str] | None:
    """Return which of the `known` images `place` names, a folder or a list of a YAML file; None if it is neither."""
    for below in _below(path, place):
        target = root / below
        if target.is_file() and target.suffix.lower() == ".txt":
            return _listed(target, known)
        if below in ("", "."):
            return [name for found in known.values() for name in found]
        if target.is_dir():
            return [name for key, found in known.items() if key.startswith(f"{below}/") for name in found]
    return None


def _below(path: str, place: str) -> list[str]:
    """Return what `place` in the folder `path` may be below a data set that was moved here: longest first."""
    choices = []
    for text in (f"{path}/{place}", place):
        pieces = [piece for piece in text.replace("\\", "/").split("/") if piece not in ("", ".", "..")]
        choices += ["/".join(pieces[start:]) for start in range(len(pieces))] or [""]
    return list(dict.fromkeys(choices))


def _listed(file: Path, known: Mapping[str, list[str]]) -> list[str]:
    """Return which of the `known` images the list `file` names, by as much of their paths as is below the data set."""
    try:
        lines = plain.text(file, plain.MAX_BYTES).splitlines()
    except (OSError, ValueError):
        return []
    found: list[str] = []
    for line in filter(None, map(str.strip, lines)):
        pieces = [piece for piece in line.replace("\\", "/").split("/") if piece not in ("", ".", "..")]
        stems = (names.stem("/".join(pieces[start:])) for start in range(len(pieces)))
        found += next((known[stem] for stem in stems if stem in known), [])
    return found


def licences(content: Mapping[str, Any], root: Path) -> tuple[dict[str, Any], ...]:
    """Return the licence that Roboflow's part of the YAML's `content`, or its note next to it, gives."""
    said = content.get("roboflow")
    if isinstance(said, dict) and isinstance(said.get("license"), str):
        url = said.get("url")
        return ({"id": 1, "name": said["license"]} | ({"url": url} if isinstance(url, str) else {}),)
    return noted_licence(root)


def noted_licence(root: Path) -> tuple[dict[str, Any], ...]:
    """Return the licence that Roboflow's note (`README.dataset.txt`, `README.roboflow.txt`) names, if it does."""
    for name in ("README.dataset.txt", "README.roboflow.txt"):
        try:
            found = re.search(r"(?m)^License: *(\S.{0,80}?) *$", plain.text(root / name))
        except (OSError, ValueError):
            continue
        if found:
            return ({"id": 1, "name": found[1]},)
    return ()
