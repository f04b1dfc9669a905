"""A folder of images without annotations: a data set without cells."""

from pathlib import Path, PurePosixPath

from ...annotations import DataSet, Image
from ...errors import FormatProblem
from .. import file_names, gather, image_files
from . import findings, names
from .findings import Note, Report, refuse


def read(root: Path, report: Report = refuse, note: Note = findings.ignore, recursive: bool = False) -> DataSet:
    """Read the images in the folder `root`, with `recursive` those in the folders below it too, or one image file.

    All of them are of the part 'train', but for those in folders that are called as another part.
    """
    if not root.exists():
        raise FormatProblem(f"{root}: no such file or folder")
    folder = root if root.is_dir() else root.parent
    found, refused = gather.gathered(root, recursive) if root.is_dir() else ([(root.name, root)], [])
    for line in refused:
        note(findings.IGNORED, line)
    images = []
    for name, _ in found:
        try:
            images.append(Image(name, *image_files.size(file_names.inside(folder, name))))
        except image_files.ImageProblem as problem:
            report(str(problem))
    parts: dict[str, list[str]] = {}
    for image in images:
        folders = PurePosixPath(image.file_name).parts[:-1]
        part = next((names.PARTS[f.lower()] for f in folders if f.lower() in names.PARTS), "train")
        parts.setdefault(part, []).append(image.file_name)
    return DataSet(folder, tuple(images), (), parts={part: tuple(members) for part, members in parts.items()})
