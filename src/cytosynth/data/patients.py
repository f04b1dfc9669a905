"""Parts by patient: a table gives the patient of each image or slide; all images of a patient are in one part."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ..annotations import DataSet
from ..errors import UserError
from ..io import plain
from .split import FRACTIONS

PATIENT = "patient"


def table(path: Path, column: str) -> dict[str, str]:
    """Return the patient of each entry of `column` in the CSV table `path`; raise UserError if it is none."""
    try:
        rows = list(csv.DictReader(io.StringIO(plain.text(path))))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV table ({str(error)[:80]})") from None
    if not rows or not {column, PATIENT} <= set(rows[0]):
        raise UserError(f"{path}: the columns {column} and {PATIENT} are required")
    return {(row[column] or "").strip(): (row[PATIENT] or "").strip() for row in rows}


def divided(data: DataSet, path: Path) -> DataSet:
    """Return `data` with the patient of each image, by the columns image and patient of the table `path`, and parts.

    The table names images by their file name, with or without suffix. Raises UserError if one is missing there, or
    where there are too few patients for three parts.
    """
    known = table(path, "image")
    images = []
    for image in data.images:
        name = PurePosixPath(image.file_name)
        keys = (image.file_name, name.name, str(name.with_suffix("")), name.stem)
        whose = next((known[key] for key in keys if known.get(key)), None)
        if whose is None:
            raise UserError(f"{path}: no patient for the image {image.file_name[:80]!r}")
        images.append(replace(image, extra=image.extra | {PATIENT: whose}))
    part_of = parts([image.extra[PATIENT] for image in images])
    members = {
        name: tuple(image.file_name for image in images if part_of[image.extra[PATIENT]] == name) for name in FRACTIONS
    }
    return replace(data, images=tuple(images), parts=members)


def parts(whose: Sequence[str]) -> dict[str, str]:
    """Return the part of each patient, `whose` images there are.

    Patients, in the order of a hash of their names, fill 'test' and then 'val' up to their shares of the images; the
    others are in 'train'. So each part has a patient, which a hash alone does not give a small set. Raises UserError
    for fewer patients than parts.
    """
    counts = Counter(whose)
    waiting = sorted(counts, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest())
    if len(waiting) < len(FRACTIONS):
        raise UserError(f"{len(waiting)} patients: at least {len(FRACTIONS)} are needed, one for each part")
    found = {}
    for name, others in (("test", 2), ("val", 1)):
        taken = 0
        while not taken or (taken < FRACTIONS[name] * len(whose) and len(waiting) > others):
            patient = waiting.pop()
            found[patient] = name
            taken += counts[patient]
    return found | dict.fromkeys(waiting, "train")
