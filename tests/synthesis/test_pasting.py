"""Copy-paste: what is cut out, where it lands, and that the boxes say so."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from cytosynth.annotations import Cell
from cytosynth.cli import app
from cytosynth.cli import paste as _command  # noqa: F401
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.errors import UsageError, UserError
from cytosynth.io import atomic
from cytosynth.provenance import COMPOSITE, said, write_records
from cytosynth.synthesis.pasting import exemplars
from cytosynth.synthesis.pasting.paste import paste
from cytosynth.synthesis.pasting.settings import PasteSettings

ALL = Source(root="drawn", split="all")
SETTINGS = PasteSettings(min_cells=2, max_cells=3)


def one(pixels: np.ndarray, *cells: Cell, **changes: object) -> list[exemplars.Exemplar]:
    settings = PasteSettings(**changes)
    return exemplars.cut(pixels, cells, "a.png", "0" * 64, ["LSIL", "HSIL"], settings, "NILM")


def cell_at(box: list[float], category: str) -> dict[str, Any]:
    return {"bbox_xyxy": box, "category": category, "seed": 1}


def record_of(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the record of an image that `edit` made from `field_0.png` of the drawn fields."""
    return {
        "file_name": name, "origin": "real-to-synthetic", "seed": 1, "key": 1, "width": 320, "height": 288,
        "cells": cells, "original": "field_0.png", "original_sha256": "0" * 64,
    }  # fmt: skip


def test_the_mask_is_a_feathered_ellipse() -> None:
    pixels = np.zeros((100, 120, 3), dtype=np.uint8)
    (found,) = one(pixels, Cell((40, 40, 80, 60), "LSIL"), context=1.5, feather=0.5)
    assert found.mask.shape == (30, 60)
    assert found.box == (10, 5, 50, 25)
    assert found.mask[15, 30] == 1 and found.mask[0, 0] == 0
    # along the longer axis: 1 to half of the radius of 30, 0.5 at three quarters
    assert found.mask[15, 30 + 14] == 1
    assert found.mask[15, 30 + 22] == pytest.approx(0.5, abs=0.06)
    assert np.allclose(found.mask, found.mask[::-1, ::-1])


def test_what_is_pasted_is_the_cell_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(0, 255, (100, 120, 3), dtype=np.uint8)
    (found,) = one(source, Cell((40, 40, 80, 60), "LSIL"), context=1.4)
    host = rng.integers(0, 255, (90, 90, 3), dtype=np.uint8)
    pasted = host.copy()
    box = exemplars.put(pasted, found, (50, 45), match=False)
    assert box == (30, 35, 70, 55)
    assert np.array_equal(pasted[44:46, 45:55], source[49:51, 55:65]), "the middle is the cell, pixel by pixel"
    changed = (pasted != host).any(axis=2)
    ys, xs = np.nonzero(changed)
    assert (((xs + 0.5 - 50) / 28) ** 2 + ((ys + 0.5 - 45) / 14) ** 2 < 1).all()
    corner = host.copy()
    assert exemplars.put(corner, found, (0, 0), match=False) == (8, 4, 48, 24), "moved inside whole"


def test_colours_follow_those_around() -> None:
    (found,) = one(np.full((100, 100, 3), 200, dtype=np.uint8), Cell((40, 40, 60, 60), "LSIL"))
    host = np.full((80, 80, 3), 190, dtype=np.uint8)
    exemplars.put(host, found, (40, 40))
    assert np.unique(host).tolist() == [190], "a cell as its background leaves no trace"
    dark = np.full((80, 80, 3), 90, dtype=np.uint8)
    exemplars.put(dark, found, (40, 40))
    assert dark.max() == 200 - exemplars.GREATEST


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_cell_keeps_its_box(turn: int) -> None:
    pixels = np.full((100, 100, 3), 255, dtype=np.uint8)
    pixels[30:50, 40:70] = 10
    (found,) = one(pixels, Cell((40, 30, 70, 50), "HSIL"), context=1.5)
    turned = found.turned(turn)
    x0, y0, x1, y1 = (round(side) for side in turned.box)
    assert (turned.pixels[y0:y1, x0:x1] == 10).all()
    assert (turned.pixels == 10).all(axis=2).sum() == 600


def test_cells_are_cut_out_whole_and_alone() -> None:
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    border = one(pixels, Cell((0, 40, 20, 60), "LSIL"), context=2)
    assert border[0].mask.shape == (20, 20), "no larger than the image leaves room for"
    near = one(pixels, Cell((20, 20, 40, 40), "LSIL"), Cell((33, 20, 53, 40), "HSIL"), context=2)
    assert [e.mask.shape for e in near] == [(26, 26), (26, 26)], "the other's middle, 13 away, stays out"
    assert one(pixels, Cell((20, 20, 40, 40), "LSIL"), Cell((25, 20, 45, 40), "HSIL")) == []
    assert len(one(pixels, Cell((20, 20, 40, 40), "LSIL"), Cell((25, 20, 45, 40), "NILM"))) == 1
    assert one(pixels, Cell((20, 20, 40, 40), "SCC")) == []
    crowd = Cell((20, 20, 40, 40), "LSIL", extra={"iscrowd": 1})
    assert one(pixels, crowd) == []


def test_a_set_of_pasted_cells_says_what_is_from_where(fields: Path, tmp_path: Path) -> None:
    data = paste(ALL, tmp_path / "out", fields, count=5, settings=SETTINGS)
    assert check(tmp_path / "out") == []
    records = said(tmp_path / "out")
    digests = {atomic.sha256(path): path.name for path in (fields / "drawn/images").iterdir()}
    normal = {"field_0.png", "field_3.png"}
    for image in data.images:
        record = records[image.file_name]
        assert 2 <= len(image.cells) == len(record["cells"]) <= 3
        assert digests[record["original_sha256"]] == record["original"] in normal
        for cell, told in zip(image.cells, record["cells"], strict=True):
            origin = told["pasted_from"]
            assert digests[origin["sha256"]] == origin["file_name"] not in normal
            assert cell.box == tuple(told["bbox_xyxy"])
            assert sorted(cell.size) == pytest.approx([40, 40])
    with PILImage.open(tmp_path / "out/images/000000.png") as image:
        assert COMPOSITE in image.text["XML:com.adobe.xmp"]
    assert coco.read(tmp_path / "out").info["origin"] == "pasted"


def test_every_box_holds_the_cell_that_it_is_said_to(fields: Path, tmp_path: Path) -> None:
    """Without turning or shifting, the middle of each box is that of the original, pixel by pixel."""
    settings = SETTINGS.model_copy(update={"turns": False, "match": False})
    data = paste(ALL, tmp_path / "out", fields, count=4, settings=settings)
    for image in data.images:
        made = np.asarray(PILImage.open(data.path(image)))
        for told in said(tmp_path / "out")[image.file_name]["cells"]:
            origin = told["pasted_from"]
            real = np.asarray(PILImage.open(fields / "drawn/images" / origin["file_name"]))
            x, y = (round((told["bbox_xyxy"][i] + told["bbox_xyxy"][i + 2]) / 2) for i in (0, 1))
            u, v = (round((origin["bbox_xyxy"][i] + origin["bbox_xyxy"][i + 2]) / 2) for i in (0, 1))
            assert np.array_equal(made[y - 8 : y + 8, x - 8 : x + 8], real[v - 8 : v + 8, u - 8 : u + 8])


def test_as_many_cells_at_the_places_of_an_edited_set(fields: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited"
    edited.mkdir()
    cells = [cell_at([40, 40, 80, 80], "LSIL"), cell_at([150.5, 100, 190.5, 140], "SCC")]
    records = [record_of(f"{n}.png", cells[: n + 1]) for n in range(2)]
    write_records(edited, records)
    data = paste(ALL, tmp_path / "out", fields, like=[edited], settings=SETTINGS)
    assert [len(image.cells) for image in data.images] == [1, 2]
    for image in data.images:
        assert image.cells[0].category == "LSIL"
        assert image.cells[0].centre == pytest.approx((60, 60), abs=0.51)
    assert data.images[1].cells[1].centre == pytest.approx((170.5, 120), abs=0.51)
    write_records(edited, [records[0] | {"original": "field 1.png"}])
    with pytest.raises(UserError, match="was not made from a normal image"):
        paste(ALL, tmp_path / "no", fields, like=[edited])
    # Places of another scale would silently be others.
    write_records(edited, [records[0]])
    half = ALL.model_copy(update={"scale": 0.5})
    with pytest.raises(UserError, match="give the scale at which it was edited"):
        paste(half, tmp_path / "no", fields, like=[edited])


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"left_out": [{}]}, "left_out[0].bbox_xyxy: field required"),
    ({"left_out": 3}, "left_out: input should be a valid list (got 3)"),
    ({"left_out": [{"bbox_xyxy": [4, 5], "category": "LSIL"}]},
     "left_out[0].bbox_xyxy: not the sides of a box (got [4, 5])"),
    ({"left_out": [{"bbox_xyxy": [4, 5, 44, 45], "category": "LSIL"}]},
     "left_out[0]: field_0.png has no annotated 'LSIL' cell with the box (4, 5, 44, 45)"),
    ({"cells": [{}]}, "cells[0].bbox_xyxy: field required"),
    ({"cells": [{"bbox_xyxy": [40, 40, 80, None], "category": "LSIL", "seed": 1}]},
     "cells[0].bbox_xyxy[3]: input should be a valid number (got None)"),
    ({"original": ["field_0.png"]}, "original: input should be a valid string (got ['field_0.png'])"),
    ({"width": "320"}, "width: input should be a valid integer (got '320')"),
])  # fmt: skip
def test_a_damaged_record_of_the_edited_set_is_named(
    fields: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    edited = tmp_path / "edited"
    edited.mkdir()
    write_records(edited, [record_of("0.png", [cell_at([40, 40, 80, 80], "LSIL")]) | changes])
    ran = CliRunner().invoke(app, ["paste", str(fields / "drawn"), str(tmp_path / "no"), "--split", "all",
                                   "--like", str(edited)])  # fmt: skip
    assert isinstance(ran.exception, UserError) and ran.exit_code == 1
    assert str(ran.exception).startswith(f"{edited / 'provenance.jsonl'}: 0.png: {complaint}")
    assert not (tmp_path / "no").exists()


def test_an_edited_set_without_records_and_no_count_are_refused(fields: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited"
    edited.mkdir()
    for content in (None, "", '{"file_name": 3}\n'):
        if content is not None:
            (edited / "provenance.jsonl").write_text(content)
        with pytest.raises(UserError, match=r"edited: no record of an image in provenance.jsonl; give a data set"):
            paste(ALL, tmp_path / "no", fields, like=[edited])
    with pytest.raises(UsageError, match=r"count \(0\) must be at least 1"):
        paste(ALL, tmp_path / "no", fields)
    assert not (tmp_path / "no").exists()


def test_counterparts_without_a_cell_and_cells_without_a_place_are_counted(
    fields: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = tmp_path / "edited"
    edited.mkdir()
    nilm, lsil = (cell_at([40, 40, 80, 80], name) for name in ("NILM", "LSIL"))
    cells = [[nilm, nilm], [nilm, lsil], []]
    records = [record_of(f"{n}.png", own) for n, own in enumerate(cells)]
    write_records(edited, records)
    data = paste(ALL, tmp_path / "out", fields, like=[edited], settings=SETTINGS)
    assert [len(image.cells) for image in data.images] == [0, 1, 0], "as many images and abnormal boxes as edited"
    line = "2 images of 3 without a pasted cell: the edited images that they are like have no abnormal cell"
    card = (tmp_path / "out/README.md").read_text()
    assert line in capsys.readouterr().err and f"## What was not pasted\n\n- {line}" in card
    write_records(edited, [records[1] | {"cells": [lsil] * 200}])
    (full,) = paste(ALL, tmp_path / "full", fields, like=[edited], settings=SETTINGS).images
    assert 1 < len(full.cells) < 200
    line = f"{200 - len(full.cells)} cells of 200 not pasted: no free place"
    assert line in capsys.readouterr().err and line in (tmp_path / "full/README.md").read_text()


def test_it_is_reproducible_and_uses_all_cells(fields: Path, tmp_path: Path) -> None:
    many = PasteSettings(min_cells=3, max_cells=3)
    first = paste(ALL, tmp_path / "a", fields, count=6, settings=many)
    paste(ALL, tmp_path / "b", fields, count=6, settings=many)
    for name in ("annotations.json", "provenance.jsonl", "images/000003.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    used = Counter(
        (cell["pasted_from"]["file_name"], tuple(cell["pasted_from"]["bbox_xyxy"]))
        for record in said(tmp_path / "a").values() for cell in record["cells"]
    )  # fmt: skip
    assert max(used.values()) - min(used.values()) <= 1
    assert first.images
    with pytest.raises(UserError, match="not empty"):
        paste(ALL, tmp_path / "a", fields, count=6, settings=many)


def test_it_needs_normal_images_and_abnormal_cells(fields: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image without an abnormal cell in part 'test'"):
        paste(Source(root="drawn", split="test"), tmp_path / "out", fields, count=1)
    with pytest.raises(UserError, match="no cell of SCC in part 'all' can be cut out"):
        paste(ALL, tmp_path / "out", fields, count=1, categories=["SCC"])
    assert not (tmp_path / "out").exists()


def test_the_command(fields: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["paste", str(fields / "drawn"), str(out), "--split", "all", "--count", "2", "--set", "max_cells=1"]
    )
    assert result.exit_code == 0, result.output
    assert len(json.loads((out / "annotations.json").read_text())["annotations"]) == 2
