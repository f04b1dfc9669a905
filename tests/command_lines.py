"""Command lines on the tiny models, and what is asked of the folders that they write."""

import json
import os
from pathlib import Path

from cytosynth.provenance import RECORDS

SETTINGS = ["normal.size=320", "normal.steps=1", "cell.steps=1", "threshold=0.1", "cell.box_scale=1.2", "max_cells=3"]
FLAGS = [flag for setting in SETTINGS for flag in ("--set", setting)]


def models(tiny: Path, *names: str) -> list[str]:
    return [flag for name in names for flag in (f"--{name}", str(tiny / name))]


def synthesize(tiny: Path, out: Path, count: int = 3) -> list[str]:
    named = models(tiny, "foundation", "normal", "cell", "detector")
    return ["synthesize", str(out), "--count", str(count), "--seed", "5", *FLAGS, *named]


def edit(tiny: Path, source: Path, out: Path) -> list[str]:
    return ["edit", str(source), str(out), "--seed", "5", *FLAGS[4:], *models(tiny, "foundation", "cell", "detector")]


def detect(tiny: Path, source: Path, out: Path) -> list[str]:
    return ["detect", str(source), str(out), "--threshold", "0.1", *models(tiny, "detector")]


SUBCOMMANDS = ("synthesize", "edit", "detect")


def command(subcommand: str, tiny: Path, source: Path, out: Path, count: int) -> list[str]:
    """Return the command line of `subcommand`; `source` has images for those that read some, `count` for the other."""
    return {
        "synthesize": synthesize(tiny, out, count), "edit": edit(tiny, source, out), "detect": detect(tiny, source, out)
    }[subcommand]  # fmt: skip


def no_id_twice(folder: Path) -> None:
    """Fail when an id, image or record is missing or double in the data set `folder`, or in what `detect` found."""
    data = json.loads((folder / "annotations.json").read_text())
    names = [image["file_name"] for image in data["images"]]
    images, records = ("pictures", "found.jsonl") if (folder / "detect.json").exists() else ("images", RECORDS)
    shown = sorted(path.name for path in (folder / images).iterdir())
    assert shown == sorted(f"{name}.png" if images == "pictures" else name for name in names)
    assert [image["id"] for image in data["images"]] == list(range(1, len(names) + 1))
    assert [entry["id"] for entry in data["annotations"]] == list(range(1, len(data["annotations"]) + 1))
    lines = (folder / records).read_text().splitlines()
    assert sorted(json.loads(line)["file_name"] for line in lines) == sorted(names)


def filled(place: Path, left: int) -> Path:
    """Fill the disk at `place` up to `left` bytes; return the file that does."""
    ballast = place / "ballast"
    state = os.statvfs(place)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, state.f_bavail * state.f_frsize - left)))
    return ballast
