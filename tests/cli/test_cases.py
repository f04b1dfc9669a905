"""What the commands make of the small data sets of `tests/cases`, from the command line to the files.

`tests/data/test_layouts.py` tests the readers with the same sets.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import killing
from command_lines import detect, edit
from cytosynth.data import image_files

CASES = Path(__file__).parents[1] / "cases"


def data(name: str) -> list[str]:
    return ["--data-root", str(CASES), "--set", f"data=[{{root: {name}, split: all}}]"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("evaluate", "annotations[0] (a.jpg): box (nan, 80, nan, 110) is not finite"),
        ("huge", "annotations[0] (a.jpg): box (-1e+08, -1e+08, 1e+08, 1e+08) lies outside the image of 320x240"),
        ("far", "annotations[0] (a.jpg): box (5000, 4000, 5080, 4080) lies outside the image of 320x240"),
    ],
)
def test_commands_name_image_and_box_of_a_box_that_is_none(
    name: str, said: str, cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    own, run = CASES / "02_nan_box" / name, tmp_path / "run"
    for command in (
        ["evaluate", "detection", own, "--detector", tiny / "detector", "--split", "all", "--scale", "0.5"],
        ["convert", own, run, "--to", "yolo"],
        ["train", "features", run, *data(f"02_nan_box/{name}")],
        ["train", "detector", run, "--architecture", "comparison-detector", *data(f"02_nan_box/{name}")],
        ["train", "cell", run, "--set", f"foundation={tiny / 'foundation'}", *data(f"02_nan_box/{name}")],
    ):
        ended = cytosynth.run(*command)
        assert ended.code == 1, (command[:2], ended.err)
        last = ended.err.splitlines()[-1]
        assert last.startswith("cytosynth: ") and said in last
        assert "Traceback" not in ended.err


def test_normal_cells_of_another_name_are_the_reason_that_there_is_no_normal_image(
    cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    named = tmp_path / "named"
    assert cytosynth.run("convert", CASES / "11_normal_folder/named", named, "--to", "coco").code == 0
    given = ["--data-root", tmp_path, "--set", f"foundation={tiny / 'foundation'}"]
    ended = cytosynth.run("train", "normal", tmp_path / "run", *given, "--set", "data=[{root: named, split: all}]")
    assert ended.code == 1, ended.err
    assert "cells are annotated as 'normal', not NILM (`convert --rename`)" in ended.err.splitlines()[-1]
    renamed = ["convert", CASES / "11_normal_folder/named", tmp_path / "renamed", "--to", "coco"]
    assert cytosynth.run(*renamed, "--rename", "normal=NILM").code == 0
    content = json.loads((tmp_path / "renamed/annotations.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["NILM"]


def test_folders_in_a_folder_are_searched_where_that_is_asked_for(
    cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    source = CASES / "15_nested_normals/slides"
    for command in (detect, edit):
        ended = cytosynth.run(*command(tiny, source, tmp_path / "none"))
        assert ended.code == 1, ended.err
        assert "--recursive" in ended.err
    ended = cytosynth.run(*detect(tiny, source, tmp_path / "found"), "--recursive")
    assert ended.code == 0, ended.err
    content = json.loads((tmp_path / "found/annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["s1/1.jpg", "s2/1.jpg"]


def test_sixteen_bits_are_skipped_and_named_and_a_thumbnail_is_not_taken_for_the_image(
    cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    ended = cytosynth.run(*detect(tiny, CASES / "06_tiff16/images", tmp_path / "out"))
    assert ended.code == 4, ended.err
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    (line,) = content["info"]["skipped"]
    assert line.startswith("12in16.tif: more than 8 bits per channel")
    (image,) = content["images"]
    with Image.open(CASES / "06_tiff16/images/thumbnail_first.tif") as file:
        sizes = []
        for page in range(file.n_frames):
            file.seek(page)
            sizes.append(file.size)
    assert (image["file_name"], (image["width"], image["height"])) == ("thumbnail_first.tif", max(sizes))


@pytest.mark.parametrize("command", [detect, edit])
def test_pseudonyms_replace_names_in_all_that_is_written(
    command: object, cytosynth: killing.Server, tiny: Path, tmp_path: Path
) -> None:
    secret, source, out = "S23-004711", tmp_path / "S23-004711 fields", tmp_path / "out"
    source.mkdir()
    pixels = np.random.default_rng(0).integers(150, 250, (320, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source / f"{secret}.png")
    (source / f"{secret}.gif").write_bytes(b"x")
    given = command(tiny, source, out)  # type: ignore[operator]
    ended = cytosynth.run(*given, "--pseudonymise", "--key", tmp_path / "key")
    assert ended.code == 4, ended.err
    written = [path for path in out.rglob("*") if path.is_file()]
    assert [image["file_name"] for image in json.loads((out / "annotations.json").read_text())["images"]] != []
    assert not [path for path in written if secret in path.name or secret.encode() in path.read_bytes()]
    assert any(image_files.size(path) == (320, 320) for path in written if path.suffix == ".png")
