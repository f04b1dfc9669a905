"""The chosen images as a data set, whose card states how and on which data they were chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...annotations import DataSet, Image
from ...data import file_names
from ...data.formats import coco
from ...io import atomic
from ...provenance import NOTICES, OTHER, write_records
from ...synthesis import card, publish
from .candidates import SyntheticSet
from .ranking import Ranked


def write(
    out: Path, chosen: Sequence[Ranked], sets: Sequence[SyntheticSet], how: Sequence[str], settings: Mapping[str, Any]
) -> DataSet:
    """Write the images of `chosen`, best first, as the data set `out`, complete or not at all.

    Args:
        out: folder; one that is there is replaced.
        chosen: the images.
        sets: those they are from.
        how: lines on how they were chosen, for the data card.
        settings: of the choice, for the same.
    """
    by_label = {one.label: one for one in sets}
    licences = _licences(sets)
    numbers = [{old.get("id"): licences.index(_named(old)) + 1 for old in one.data.licences} for one in sets]
    number_of = dict(zip(by_label, numbers, strict=True))
    images, records, taken = [], [], set[str]()
    with atomic.folder(out) as part:
        (part / "images").mkdir()
        for rank, one in enumerate(chosen, 1):
            own, image = by_label[one.candidate.label], one.candidate.image
            whole = f"{own.label}_{image.file_name}" if len(sets) > 1 else image.file_name
            name = file_names.flat(whole, one.candidate.path.suffix, taken)
            atomic.write_bytes(part / "images" / name, one.candidate.path.read_bytes())
            images.append(_image(image, name, number_of[own.label]))
            records.append(_record(one, rank, name, own.records.get(image.file_name)))
        info = {"description": "Synthetic cervical cytology, a selected subset (not for diagnosis)",
                "software": f"CytoSynth {__version__}", "synthetic": True, "chosen": list(how)}  # fmt: skip
        derived = {key: value for one in sets for key, value in _dict(one.data.info, "derived_from").items()}
        if derived:
            info["derived_from"] = derived
        categories = tuple(dict.fromkeys(name for one in sets for name in one.data.categories))
        entries = tuple(entry | {"id": number} for number, entry in enumerate(licences, 1))
        data = DataSet(part / "images", tuple(images), categories, entries, info)
        write_records(part, records)
        coco.write(data, part)
        origin = _origin(records)
        publish.preview(data, part, origin)
        atomic.write_text(part / "README.md", _card(data, records, origin, how, settings))
    return replace(data, folder=out / "images")


def _image(image: Image, name: str, licence: Mapping[Any, int]) -> Image:
    extra = {**image.extra, "synthetic": True}
    if isinstance(extra.get("license"), int | str) and extra["license"] in licence:
        extra["license"] = licence[extra["license"]]
    return replace(image, file_name=name, extra=extra)


def _record(one: Ranked, rank: int, name: str, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the record `known` of an image under its new name, with its rank."""
    size = {"width": one.candidate.image.width, "height": one.candidate.image.height}
    chosen = {
        "rank": rank, "uncertainty": round(one.uncertainty, 6), "distance": round(one.distance, 6),
        "merit": round(one.merit, 6), "set": one.candidate.label, "file_name": one.candidate.image.file_name,
    }  # fmt: skip
    record = {**size, **(known or {}), "file_name": name, "chosen": chosen}
    origin = record.get("origin")
    return {**record, "origin": origin if isinstance(origin, str) and origin in NOTICES else OTHER}


def _origin(records: Sequence[Mapping[str, Any]]) -> str:
    origins = {record["origin"] for record in records}
    return origins.pop() if len(origins) == 1 else OTHER


def _dict(said: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object under `key` of `said`, empty if that is not an object."""
    value = said.get(key)
    return value if isinstance(value, dict) else {}


def _named(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "id"}


def _licences(sets: Sequence[SyntheticSet]) -> list[dict[str, Any]]:
    """Return the licences of all sets, each once, without their numbers."""
    found: list[dict[str, Any]] = []
    for one in sets:
        found += [_named(entry) for entry in one.data.licences if _named(entry) not in found]
    return found


def _card(
    data: DataSet, records: Sequence[Mapping[str, Any]], origin: str, how: Sequence[str], settings: Mapping[str, Any]
) -> str:
    models = card.models_of(records)
    bundled = any(model.startswith("bundled ") for model in models.values())
    section = ["## How these images were chosen", "", *(f"- {line}" for line in how), ""]
    return card.text(data, models, settings, (), bundled, origin, section)
