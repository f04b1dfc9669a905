"""Parts by patient: no patient is in two, each part has one, whatever the number of their images."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import write_fields
from cytosynth.cli import app
from cytosynth.cli import data as _commands  # noqa: F401
from cytosynth.data.convert import convert
from cytosynth.data.patients import parts
from cytosynth.data.read import read
from cytosynth.errors import UserError


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=60))
def test_every_part_has_patients_and_no_more_than_it_needs(counts: list[int]) -> None:
    whose = [f"patient {number}" for number, count in enumerate(counts) for _ in range(count)]
    found = parts(whose)
    assert set(found) == set(whose)
    assert set(found.values()) == {"train", "val", "test"}
    images = Counter(found[patient] for patient in whose)
    for name, share in (("test", 0.2), ("val", 0.1)):
        members = [patient for patient in found if found[patient] == name]
        assert len(members) == 1 or images[name] - max(whose.count(one) for one in members) < share * len(whose)


def table(path: Path, rows: dict[str, str]) -> Path:
    path.write_text("image,patient\n" + "".join(f"{name},{patient}\n" for name, patient in rows.items()))
    return path


def test_convert_divides_by_the_table_and_hashes_patients_with_the_names(tmp_path: Path) -> None:
    write_fields(tmp_path / "given")
    (tmp_path / "given/split.json").unlink()
    names = sorted(path.name for path in (tmp_path / "given/images").iterdir())
    whose = {name: f"P{number // 2}" for number, name in enumerate(names)}
    rows = table(tmp_path / "patients.csv", {Path(name).stem: patient for name, patient in whose.items()})
    command = ["convert", str(tmp_path / "given"), str(tmp_path / "out"), "--to", "coco", "--patients", str(rows)]
    assert CliRunner().invoke(app, command).exit_code == 0
    members = json.loads((tmp_path / "out/split.json").read_text())
    assert {name: len(found) for name, found in members.items()} == {"train": 2, "val": 2, "test": 2}
    for found in members.values():
        assert len({whose[name] for name in found}) == 1
    assert {image.file_name: image.extra["patient"] for image in read(tmp_path / "out").images} == whose
    command[2:3] = [str(tmp_path / "hidden"), "--pseudonymise", "--key", str(tmp_path / "key")]
    assert CliRunner().invoke(app, command).exit_code == 0
    hidden = read(tmp_path / "hidden")
    assert {part: len(found) for part, found in hidden.parts.items()} == {"train": 2, "val": 2, "test": 2}
    assert not any(image.extra["patient"] in whose.values() for image in hidden.images)


def test_a_table_that_lacks_an_image_or_patients_is_refused(tmp_path: Path) -> None:
    write_fields(tmp_path / "given")
    names = sorted(path.name for path in (tmp_path / "given/images").iterdir())
    rows = dict.fromkeys(names, "P0")
    with pytest.raises(UserError, match="1 patients: at least 3 are needed"):
        convert(tmp_path / "given", tmp_path / "out", None, "coco", whose=table(tmp_path / "one.csv", rows))
    del rows["field_4.png"]
    with pytest.raises(UserError, match=r"no patient for the image 'field_4\.png'"):
        convert(tmp_path / "given", tmp_path / "out", None, "coco", whose=table(tmp_path / "lack.csv", rows))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="the columns image and patient are required"):
        convert(tmp_path / "given", tmp_path / "out", None, "coco", whose=tmp_path / "other.csv")
    assert not (tmp_path / "out").exists()
