"""The known layouts of data sets: the files by which each is recognised, and its tree. The only such table."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import UserError
from .. import gather, image_files
from ..slides import reader
from . import coco_files, names, riva, yolo_files

IMAGE = "IMAGE"
COCO = "COCO:"
YAML = "YAML:"
BOXES = "BOXES:"
"""In what a layout needs: any image file; a JSON file that holds COCO, a YAML file that names classes, a label."""


@dataclass(frozen=True)
class Layout:
    """One way in which a tool lays out a data set.

    Attributes:
        format: whose reader reads it.
        tool: what writes it.
        needs: patterns of files (`*.json`) and folders (`labels/`) all of which must be present, whatever their case.
        tree: what it looks like, a line each.
    """

    format: str
    tool: str
    needs: tuple[str, ...]
    tree: tuple[str, ...]


LAYOUTS = (
    Layout("coco", "CytoSynth", ("annotations.json",),
           ("annotations.json", "images/a.png", "split.json               (optional: parts)")),
    Layout("coco", "Roboflow COCO", (f"{COCO}*/_annotations.coco.json",),
           ("train/_annotations.coco.json", "train/a.jpg", "valid/_annotations.coco.json", "valid/b.jpg")),
    Layout("coco", "Roboflow COCO, without parts", (f"{COCO}_annotations.coco.json",),
           ("_annotations.coco.json", "a.jpg")),
    Layout("coco", "COCO 2017", (f"{COCO}annotations/instances_*.json",),
           ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017/a.jpg",
            "val2017/b.jpg")),
    Layout("coco", "CVAT (COCO 1.0), Datumaro", (f"{COCO}annotations/*.json",),
           ("annotations/instances_default.json", "images/a.jpg           (or images/default/a.jpg)")),
    Layout("coco", "FiftyOne (COCODetectionDataset)", (f"{COCO}labels.json",), ("labels.json", "data/a.jpg")),
    Layout("coco", "Label Studio (COCO)", (f"{COCO}result.json",), ("result.json", "images/1f-a.jpg")),
    Layout("coco", "labelme2coco", (f"{COCO}dataset.json",),
           ("dataset.json             (or train.json and val.json)", "raw/a.jpg")),
    Layout("coco", "any other", (f"{COCO}*.json",),
           ("NAME.json                (images, annotations, categories)", "a.jpg")),
    Layout("coco", "any other, a folder for each part", (f"{COCO}*/*.json",), ("train/NAME.json", "train/a.jpg")),
    Layout("yolo", "CytoSynth", ("data.yaml",),
           ("data.yaml", "images/a.png", "labels/a.txt", "train.txt, val.txt       (optional: parts)",
            "dataset.json             (optional: licences, sources)")),
    Layout("yolo", "Ultralytics, CVAT (Ultralytics YOLO Detection)", (f"{YAML}data.yaml", "images/*/", "labels/*/"),
           ("data.yaml                (names, train, val)", "images/train/a.jpg", "images/val/b.jpg",
            "labels/train/a.txt", "labels/val/b.txt")),
    Layout("yolo", "Roboflow YOLO", (f"{YAML}data.yaml", "*/images/", "*/labels/"),
           ("data.yaml", "train/images/a.jpg", "train/labels/a.txt", "valid/images/b.jpg", "valid/labels/b.txt")),
    Layout("yolo", "FiftyOne (YOLOv5Dataset)", (f"{YAML}*.y*ml",),
           ("dataset.yaml", "images/val/a.jpg", "labels/val/a.txt")),
    Layout("yolo", "CVAT (YOLO 1.1)", ("obj.names", "obj.data"),
           ("obj.names", "obj.data", "train.txt", "obj_train_data/a.jpg", "obj_train_data/a.txt")),
    Layout("yolo", "FiftyOne (YOLOv4Dataset)", ("obj.names",), ("obj.names", "images.txt", "data/a.jpg", "data/a.txt")),
    Layout("yolo", "Label Studio (YOLO)", ("classes.txt", "labels/"),
           ("classes.txt", "notes.json", "images/1f-a.jpg", "labels/1f-a.txt")),
    Layout("yolo", "LabelImg (YOLO)", ("classes.txt", IMAGE), ("classes.txt", "a.jpg", "a.txt")),
    Layout("yolo", "Label Studio (YOLO), classes among the labels", ("labels/classes.txt",),
           ("labels/classes.txt", "labels/a.txt", "images/a.jpg")),
    Layout("yolo", "Roboflow Darknet", ("*/_darknet.labels",), ("train/_darknet.labels", "train/a.jpg", "train/a.txt")),
    Layout("voc", "Pascal VOC, CVAT (PASCAL VOC 1.1), Label Studio, CytoSynth", ("annotations/*.xml",),
           ("Annotations/a.xml", "JPEGImages/a.jpg         (or images/a.jpg)",
            "ImageSets/Main/train.txt (optional: parts)")),
    Layout("voc", "Pascal VOC with folders in it", ("annotations/*/", "jpegimages/"),
           ("Annotations/slide1/a.xml", "JPEGImages/slide1/a.jpg")),
    Layout("voc", "FiftyOne (VOCDetectionDataset)", ("labels/*.xml",), ("labels/a.xml", "data/a.jpg")),
    Layout("voc", "LabelImg (PASCAL VOC)", ("*.xml", IMAGE), ("a.jpg", "a.xml")),
    Layout("voc", "Roboflow VOC", ("*/*.xml",), ("train/a.jpg", "train/a.xml", "valid/b.jpg", "valid/b.xml")),
    Layout("cric", "the CRIC Cervix release", ("classifications.json",), ("classifications.json", "a.png")),
    Layout("cric", "the CRIC Cervix release, as a table", ("classifications.csv",), ("classifications.csv", "a.png")),
    Layout("comparison-detector", "the Comparison Detector database; name it by --from", (),
           ("annotations.json or Annotations/", "images/ or JPEGImages/")),
    Layout("riva", "the RIVA benchmark", (), ("annotations/train.csv", "images/train/a.png")),
    Layout("slides", "whole slides; annotations of QuPath", (), ("slide1.svs", "slide1.geojson")),
    Layout("folders", "a folder for each class", (), ("NILM/cell1.png", "HSIL/cell2.png")),
    Layout("images", "images without annotations", (),
           ("a.png", "b.jpg", "slide1/c.png             (with --recursive)")),
)  # fmt: skip
"""The first whose needs are all met is the layout of a folder."""
FOREIGN = (
    ('"imagePath"', "labelme's own format; convert it with labelme2coco"),
    ('"_via_', "VGG Image Annotator's own format; export as COCO"),
    ('"regions"', "VGG Image Annotator's own format; export as COCO"),
    ('"completed_by"', "Label Studio's own format; export as COCO, YOLO or Pascal VOC"),
    ('"predictions"', "Label Studio's own format; export as COCO, YOLO or Pascal VOC"),
    ('"FeatureCollection"', "GeoJSON; export from QuPath is not read"),
    ('"sample_fields"', "FiftyOne's own format; export as COCODetectionDataset"),
    ("<cvat", "CVAT's own format; export as COCO 1.0"),
    ("<annotations>", "CVAT's own format; export as COCO 1.0"),
)
"""Patterns in the first characters of files in formats that are not read, and the advice for each."""
NUMBERED = re.compile(r"(slide|case|patient|pat|sample|wsi|scan|specimen|s|p|c)?[-_ ]?\d+")
GENERIC = frozenset({"images", "image", "img", "imgs", "raw", "data", "jpegimages", "photos", "tiles", "slides"})
SEEN = 4096
ASIDE = frozenset({"split.json", "dataset.json", "plan.json", "notes.json", "mix.json"})


def detect(root: Path) -> str:
    """Return the format of the data set at `root` by its files.

    Raises UserError that names the nearest known layout and what differs where none is known.
    """
    if reader.holds_slides(root) and not _has_plain_images(root):
        return "slides"
    if root.is_file():
        by_suffix = {".json": "coco", ".yaml": "yolo", ".yml": "yolo"} | dict.fromkeys(image_files.SUFFIXES, "images")
        if found := by_suffix.get(root.suffix.lower()):
            return found
        raise UserError(
            f"{root}: not a data set of a known format; give a COCO file (.json), or the folder of another format"
        )
    inside = _listing(root)
    if root.is_dir() and riva.tables(root):
        return "riva"
    for layout in LAYOUTS:
        if layout.needs and all(_meets(root, need, inside) for need in layout.needs):
            return layout.format
    strange = _strange(root, inside)
    if strange:
        raise UserError(f"{root}: no data set of a known format there: {strange}{_nearest(root, inside)}")
    return _without_annotations(root, inside)


def bare(root: Path) -> bool:
    """Return whether the folder `root` and the folders in it contain no annotations."""
    inside = _listing(root)
    known = any(layout.needs and all(_meets(root, need, inside) for need in layout.needs) for layout in LAYOUTS)
    return not known and not _strange(root, inside)


def _has_plain_images(root: Path) -> bool:
    """Return whether images that are no slides lie in the folder `root` itself."""
    inside = sorted(root.iterdir()) if root.is_dir() else []
    return any(_is_image(path.name) and not gather.litter(path) and not reader.is_slide(path) for path in inside)


def _listing(root: Path) -> list[str]:
    """Return the names of files, and of folders with a slash at their end, in `root` and the folders in it."""
    result: list[str] = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if gather.litter(path):
            continue
        if path.is_dir():
            try:
                below = [inner for inner in sorted(path.iterdir()) if not gather.litter(inner)]
            except OSError:
                below = []
            result += [f"{path.name}/", *(f"{path.name}/{inner.name}{'/' * inner.is_dir()}" for inner in below)]
        else:
            result.append(path.name)
    return result


def _meets(root: Path, need: str, inside: Sequence[str]) -> bool:
    """Return whether a name of those `inside` the folder `root` is what a layout needs."""
    if need == IMAGE:
        return any(_is_image(name) for name in inside if "/" not in name)
    kind, _, pattern = need.rpartition(":")
    found = [name for name in inside if _like(name, pattern)]
    if kind == COCO.rstrip(":"):
        return any(coco_files.holds(root / name) for name in found)
    if kind == YAML.rstrip(":"):
        return any(yolo_files.names_classes(root / name) for name in found)
    return bool(found)


def _like(name: str, pattern: str) -> bool:
    """Return whether `name` fits `pattern`, as deep as it is, whatever the case."""
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name.lower(), pattern.lower())


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in image_files.SUFFIXES


def _strange(root: Path, inside: Sequence[str]) -> str:
    """Return in words the first file of annotations that no layout has, nothing if there is none."""
    stems = {names.stem(name) for name in inside if _is_image(name)}
    for name in inside:
        suffix = Path(name).suffix.lower()
        if suffix in (".json", ".xml") and Path(name).name not in ASIDE:
            return f"{name[:80]} is not a file that is read{_foreign(root / name)}"
        if suffix == ".txt" and not yolo_files.NO_LABELS.fullmatch(Path(name).name):
            labels = {names.stem(name), names.stem(name).replace("labels/", "images/")}
            if labels & stems or name.startswith("labels/"):
                return f"{name[:80]} looks like a YOLO label, but its classes are missing (classes.txt, data.yaml)"
    return ""


def _foreign(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            start = file.read(SEEN)
    except OSError:
        return ""
    return next((f" ({said})" for sign, said in FOREIGN if sign in start), "")


def _nearest(root: Path, inside: Sequence[str]) -> str:
    """Return in words the known layout that is nearest to what is `inside` the folder `root`, and what differs."""

    def met(layout: Layout) -> tuple[float, int]:
        found = sum(_meets(root, need, inside) for need in layout.needs)
        alike = sum(any(_like(name, _pattern(line)) for name in inside) for line in layout.tree)
        return (found + alike) / (len(layout.needs) + len(layout.tree)), found + alike

    best = max((layout for layout in LAYOUTS if layout.needs), key=met)
    if not met(best)[1]:
        return "; `cytosynth info formats` lists the known layouts"
    missing = [need.rpartition(":")[2] for need in best.needs if not _meets(root, need, inside)]
    return (
        f"; the nearest layout is {best.tool} ({best.format}), but {', '.join(missing)} is missing; see `cytosynth "
        "info formats`"
    )


def _pattern(line: str) -> str:
    path = Path(line.split(" ")[0])
    return (path.parent / f"*{path.suffix}").as_posix() if path.suffix else line


def _without_annotations(root: Path, inside: Sequence[str]) -> str:
    """Return the format of a folder in which nothing but images lies: 'images', or 'folders' where they are classes."""
    if any(_is_image(name) for name in inside if "/" not in name):
        return "images"
    filled = [name for name in inside if name.endswith("/") and name.count("/") == 1]
    filled = [name[:-1] for name in filled if any(_is_image(other) for other in inside if other.startswith(name))]
    if not filled:
        raise UserError(
            f"{root}: no data set of a known format there, and no image ({', '.join(sorted(image_files.SUFFIXES))})"
            + _deeper(root, inside)
        )
    unlike = [name for name in filled if _no_class(name)]
    if unlike:
        raise UserError(
            f"{root}: no data set of a known format there: {', '.join(unlike[:3])[:80]} "
            f"{'holds' if len(unlike) == 1 else 'hold'} images without annotations; --recursive (or --from images) "
            "reads them as such, --from folders takes each folder for a class"
        )
    return "folders"


def _deeper(root: Path, inside: Sequence[str]) -> str:
    """Return advice if the folder `root` has no image, but nested folders."""
    deeper = [name for name in inside if name.endswith("/") and name.count("/") == 2]
    if not deeper:
        return ""
    return f"; images are in subfolders ({deeper[0][:80]}); give {root / deeper[0].partition('/')[0]}, or --recursive"


def _no_class(name: str) -> bool:
    """Return whether a folder called `name` is none of a class: a part, a usual name, or one that is numbered."""
    return name.lower() in GENERIC or names.part(name) is not None or NUMBERED.fullmatch(name.lower()) is not None


def trees() -> dict[str, list[Layout]]:
    """Return the layouts by format."""
    result: dict[str, list[Layout]] = {}
    for layout in LAYOUTS:
        result.setdefault(layout.format, []).append(layout)
    return result
