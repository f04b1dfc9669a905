"""The commands of robustness from end to end at a small size: style, controlled test, rank correlation, cards."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from conftest import drawn, write_fields
from cytosynth.cli import app, evaluate, robustness  # noqa: F401
from cytosynth.data.preview import save_png
from cytosynth.errors import UserError
from cytosynth.robustness import style
from cytosynth.robustness.style import Group
from cytosynth.variation.light import coded, linear

BLOBS = """
import json, sys
import numpy as np
from PIL import Image
from scipy import ndimage
folder, annotations, results, dark = sys.argv[1:]
content, found = json.load(open(annotations)), []
names = {entry["name"]: entry["id"] for entry in content["categories"]}
for image in content["images"]:
    grey = np.asarray(Image.open(f"{folder}/{image['file_name']}").convert("L")).astype(float)
    labels, count = ndimage.label(ndimage.gaussian_filter(grey, 2) < float(dark))
    for rows, columns in ndimage.find_objects(labels)[:200]:
        x, y, w, h = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
        score = float(np.clip(1 - grey[rows, columns].mean() / 255, 0.31, 1))
        one = {"image_id": image["file_name"], "category_id": names["HSIL"], "bbox": [x, y, w, h]}
        found.append(one | {"score": score})
json.dump(found, open(results, "w"))
"""


def call(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_style_closes_the_gap_to_a_centre_that_differs_by_its_stain(tmp_path: Path) -> None:
    """The centre's fields are drawn like ours, with two and a half times the dyes and a yellower lamp."""
    for seed in range(8):
        save_png(drawn(seed)[0], tmp_path / "ours" / f"{seed}.png")
    for seed in range(20, 36):
        light = linear(drawn(seed)[0]).astype(np.float64) ** 2.5 * (1.0, 0.9, 0.6)
        save_png(coded(light), tmp_path / "centre" / f"{seed}.png")
    call("evaluate", "style", tmp_path / "ours", tmp_path / "centre", tmp_path / "centre", "--window", 144,
         "--draws", 10, "--out", tmp_path / "out")  # fmt: skip
    rows = {row["measure"]: row["value"] for row in json.loads((tmp_path / "out/style.json").read_text())["rows"]}
    share = float(str(rows["share of the gap closed"]).split()[0])
    assert share > 0.5, rows
    distance = {name.split(", ")[1]: float(str(value).split()[0]) for name, value in rows.items() if ", " in name
                and name.startswith("K")}  # fmt: skip
    assert distance["after"] < 0.5 * distance["before"]
    facts = json.loads((tmp_path / "out/style.json").read_text())
    assert (facts["groups of the style"], facts["groups of the reference"]) == (8, 8)


def test_halves_share_no_slide() -> None:
    images = [np.full((2, 2, 3), value, np.uint8) for value in range(5)]
    first, second = style.halves(Group(images, ["b", "a", "c", "a", "b"]))
    assert (list(first.groups), list(second.groups)) == (["a", "c", "a"], ["b", "b"])
    assert [int(image[0, 0, 0]) for image in first.images] == [1, 2, 3]
    with pytest.raises(UserError, match="one slide or image; two are needed"):
        style.halves(Group(images[:2], ["a", "a"]))


@pytest.mark.slow
def test_controlled_test_and_correlation_run_to_the_end_and_continue(tiny: Path, tmp_path: Path) -> None:
    """Three detectors of another program, that see what is darker than 80, 120 and 160."""
    (tmp_path / "blobs.py").write_text(BLOBS)
    names = ["strict", "middle", "lax"]
    said = [
        f"{name}=command:{sys.executable} {tmp_path / 'blobs.py'} {{images}} {{annotations}} {{results}} {dark}"
        for name, dark in zip(names, (80, 120, 160), strict=True)
    ]
    detectors = [said[0], *(word for one in said[1:] for word in ("--also", one))]
    write_fields(tmp_path / "data/real", 4)
    call("evaluate", "robustness", detectors[0], tmp_path / "data/real", *detectors[1:], "--split", "all", "--out",
         tmp_path / "real", "--set", "variations=[stain]", "--set", "strengths=[2,4]", "--set", "draws=10")  # fmt: skip
    models = ", ".join(f"{name}: {tiny / name}" for name in ("foundation", "normal", "cell", "detector"))
    asked = [
        "evaluate", "controlled", detectors[0], *detectors[1:], "--out", tmp_path / "run", "--real", tmp_path / "real",
        "--data-root", tmp_path / "data", "--set", f"models={{{models}}}", "--set", "fields=2", "--set", "sizes=[1.0]",
        "--set", "categories=[HSIL, LSIL]", "--set", "conditions=[clean, stain-2, stain-4]", "--set", "draws=20",
        "--set", "making.normal.size=256", "--set", "making.normal.steps=2", "--set", "making.cell.steps=2",
        "--set", "making.threshold=0.05",
    ]  # fmt: skip
    call(*asked)
    with (tmp_path / "run/correlation.csv").open() as file:
        points = list(csv.DictReader(file))
    assert [(point["detector"], point["condition"]) for point in points] == [
        (name, condition) for name in names for condition in ("clean", "stain-2", "stain-4")
    ]
    pairs = np.array([(float(p["right pairs (synthetic)"]), float(p["AP (real)"])) for p in points])
    values = json.loads((tmp_path / "real/values.json").read_text())
    assert np.allclose(pairs[:, 1], [values[p["detector"]][p["condition"]]["AP"]["value"] for p in points])
    (note, _) = json.loads((tmp_path / "run/correlation.json").read_text())["notes"]
    expected = spearmanr(pairs[:, 0], pairs[:, 1]).statistic if np.ptp(pairs, axis=0).min() else float("nan")
    assert f"rank correlation {expected:.3g}"[:22] in note, note
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (tmp_path / "blobs.py").unlink()  # nothing is predicted again
    call(*asked)
    assert all(path.read_bytes() == content for path, content in files.items())
