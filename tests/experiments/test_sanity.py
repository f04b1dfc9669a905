"""The sanity set is what it says, and its table is what the detectors came to."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytosynth.data import check, sources
from cytosynth.data.formats import coco
from cytosynth.data.sources import Source
from cytosynth.detection import model
from cytosynth.errors import UsageError, UserError
from cytosynth.evaluate.detection.scoring import measure
from cytosynth.experiments import ellipses
from cytosynth.experiments.recipe import SanityRecipe
from cytosynth.experiments.sanity import sanity

SMALL = SanityRecipe(detectors=["retinanet", "dino"], steps=2, train=4, val=1, test=3, side=64,
                     training={"batch_size": 1})  # fmt: skip


def test_boxes_are_the_extents_of_the_ellipses_and_keep_apart() -> None:
    for seed in range(20):
        mask, box = ellipses.ellipse(np.random.default_rng(seed), 128, [])
        assert mask is not None
        rows, columns = np.nonzero(mask)
        extent = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(extent, box)).max() < 1
        _, cells = ellipses.draw(np.random.default_rng(seed), 128)
        assert 1 <= len(cells) <= ellipses.MOST
        for index, cell in enumerate(cells):
            assert min(cell.box) >= 0
            assert max(cell.box) <= 128
            assert all(ellipses.shared(cell.box, other.box) <= ellipses.CROWDED for other in cells[:index])
    assert ellipses.shared((0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0)) == pytest.approx(1 / 3)


def test_the_pictures_are_a_data_set_and_always_the_same(tmp_path: Path) -> None:
    for name in ("a", "b"):
        ellipses.write(tmp_path / name, SMALL)
    first, second = (coco.read(tmp_path / name) for name in ("a", "b"))
    assert first.images == second.images
    assert len(first.images) == 8
    for image in first.images:
        assert (first.folder / image.file_name).read_bytes() == (second.folder / image.file_name).read_bytes()
    assert len({(first.folder / image.file_name).read_bytes() for image in first.images}) == 8
    assert check.check(tmp_path / "a") == []


def test_the_table_holds_each_detectors_scores_on_unseen_pictures_and_continues(tmp_path: Path) -> None:
    report = sanity(SMALL, tmp_path)
    assert [row[0] for row in report.rows] == ["retinanet", "dino"]
    unseen = sources.load([Source(root="pictures", split="test")], tmp_path)
    weights = tmp_path / "dino/seed-0/training/weights"
    scores = measure(model.load(weights), unseen)
    result = tmp_path / "dino/seed-0/result.json"
    said = json.loads(result.read_text())
    assert said["map"] == scores.map
    assert said["parameters"] == sum(p.numel() for p in model.as_saved(weights).network.parameters())
    with Image.open(tmp_path / "found.png") as image:
        assert image.size == (3 * 192 + 2 * 4, 3 * 192 + 2 * 4), "the truth and two detectors, three images each"
    result.write_text(json.dumps(said | {"map": 0.25}))
    again = sanity(SMALL, tmp_path)
    assert again.rows[1][3] == "0.25", "what is there is not trained again"
    assert "0.25" in (tmp_path / "sanity.csv").read_text()
    for damaged in ("{}", "[]", result.read_text()[:30], json.dumps(said | {"map": "high"})):
        result.write_text(damaged)
        with pytest.raises(UserError, match=r"seed-0/result.json: damaged; delete it, and the same command"):
            sanity(SMALL, tmp_path)
    timing = tmp_path / "dino/seed-0/training/timing.jsonl"
    result.unlink()
    timing.write_bytes(b"\xff}\n[]\n" + timing.read_bytes())
    assert sanity(SMALL, tmp_path) == report
    with pytest.raises(UsageError, match="started with steps=2"):
        sanity(SMALL.model_copy(update={"steps": 3}), tmp_path)
