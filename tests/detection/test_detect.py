import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conftest import drawn
from cytosynth.annotations import Cell
from cytosynth.data.sources import Sample
from cytosynth.detection import model, tiles
from cytosynth.detection.recipe import DetectorRecipe
from cytosynth.detection.train import DetectorTask
from cytosynth.errors import UserError
from cytosynth.evaluate.detection.average_precision import evaluate


@pytest.mark.parametrize(("crowds", "most"), [(0, 100), (5, 100), (5, 3)])
def test_scores_equal_pycocotools_on_files(crowds: int, most: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth, found = [], []
    for _ in range(12):
        cells = [Cell((x, y, x + 40.0, y + 40.0), str(rng.choice(["A", "B"]))) for x, y in rng.uniform(0, 400, (6, 2))]
        if len(truth) < crowds:
            cells.append(Cell((0.0, 0.0, 200.0, 200.0), "A", extra={"iscrowd": 1}))
        truth.append(cells)
        noisy = []
        for cell in cells:
            dx, dy = rng.normal(0, 5, 2)
            noisy.append(Cell(cell.moved(dx, dy).box, cell.category, float(rng.uniform(0.2, 1))))
        noisy.append(Cell((1.0, 1.0, 30.0, 30.0), "A", 0.3))
        found.append(noisy)
    ours = evaluate(truth, found, ["A", "B"], most)
    images = [{"id": i} for i in range(12)]
    entries = {"truth": [], "found": []}
    for name, source in (("truth", truth), ("found", found)):
        for i, cells in enumerate(source):
            for cell in cells:
                x0, y0, x1, y1 = cell.box
                entry = {"image_id": i, "category_id": " AB".index(cell.category), "bbox": [x0, y0, x1 - x0, y1 - y0]}
                entry |= (
                    {"score": cell.score}
                    if cell.score
                    else {"area": 1600.0, "iscrowd": cell.extra.get("iscrowd", 0), "id": len(entries[name]) + 1}
                )
                entries[name].append(entry)
    file = tmp_path / "truth.json"
    categories = [{"id": 1, "name": "A"}, {"id": 2, "name": "B"}]
    file.write_text(
        json.dumps({"images": images, "annotations": entries["truth"], "categories": categories, "info": {}})
    )
    coco = COCO(str(file))
    evaluator = COCOeval(coco, coco.loadRes(entries["found"]), "bbox")
    evaluator.params.maxDets = [1, 2, most]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    assert ours.map == pytest.approx(precision.mean(), abs=1e-6)
    assert ours.map_50 == pytest.approx(precision[0].mean(), abs=1e-6)
    assert ours.map_75 == pytest.approx(precision[5].mean(), abs=1e-6)
    assert 0.2 < ours.map < 0.95


def test_a_saved_detector_finds_the_same(tiny: Path, tmp_path: Path) -> None:
    pixels, _ = drawn(0)
    first = model.as_saved(tiny / "detector")
    model.save(first.network, first.config, tmp_path)
    again = model.load(tmp_path)
    assert first.find(pixels, 0.1) == again.find(pixels, 0.1)
    assert first.digest == again.digest
    assert first.find(pixels, 0.1), "the untrained detector is set to find something"


def test_of_two_categories_in_one_place_the_better_cell_is_kept() -> None:
    place, beside = (10.0, 10.0, 50.0, 50.0), (40.0, 10.0, 80.0, 50.0)
    best, twin = Cell(place, "LSIL", 0.9), Cell((11.0, 10.0, 51.0, 50.0), "NILM", 0.8)
    near, own = Cell(beside, "NILM", 0.7), Cell((12.0, 10.0, 52.0, 50.0), "LSIL", 0.3)
    assert tiles.most_certain([twin, own, near, best]) == [best, near, own]
    assert tiles.most_certain([]) == []


def test_large_images_are_read_in_tiles_that_cover_them() -> None:
    reader = model.Detector(torch.nn.Identity(), model.DetectorConfig(categories=("NILM",), tile=1024))
    covered = np.zeros((2100, 3000), bool)
    for x, y in reader.corners(3000, 2100, 128):
        assert 0 <= x <= 3000 - 1024
        assert 0 <= y <= 2100 - 1024
        covered[y : y + 1024, x : x + 1024] = True
    assert covered.all()
    assert reader.corners(640, 480, 128) == [(0, 0)]
    assert reader.corners(1024, 1024, 128) == [(0, 0)]


class Perfect(torch.nn.Module):
    """Finds what a tile shows of every one of `cells`; the tile's first pixel says where it lies."""

    def __init__(self, cells: list[list[float]]) -> None:
        super().__init__()
        self.cells = torch.nn.Parameter(torch.tensor(cells))

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        low_x, low_y, high = (images[0][:, 0, 0] * 255).round().int().tolist()
        corner = torch.tensor([low_x + 256 * (high % 16), low_y + 256 * (high // 16)] * 2)
        size = torch.tensor([images[0].shape[2], images[0].shape[1]] * 2)
        boxes = torch.minimum((self.cells - corner).clamp(min=0), size)
        boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
        return [{"boxes": boxes, "labels": torch.ones(len(boxes)).long(), "scores": torch.full((len(boxes),), 0.9)}]


@pytest.mark.parametrize(
    ("tile", "width", "sides"), [(256, 700, (20, 100, 140, 200)), (1024, 2000, (60, 140, 270, 400))]
)
def test_a_cell_is_found_once_wherever_tiles_cut_it(tile: int, width: int, sides: tuple[int, ...]) -> None:
    """Also one wider than the tiles overlap, which none of them shows whole; beside it lies a small one."""
    x, y = np.meshgrid(np.arange(width), np.arange(500))
    pixels = np.stack([x % 256, y % 256, x // 256 + 16 * (y // 256)], axis=-1).astype(np.uint8)
    for side in sides:
        for left in range(0, width - side - 30, 41 if tile == 256 else 173):
            top = left * (500 - side) // width
            large = [left, top, left + side, top + side]
            small = [left + side + 5, top, left + side + 25, top + 20]
            network = Perfect([[float(value) for value in box] for box in (large, small)])
            config = model.DetectorConfig(backbone="small", categories=("NILM",), tile=tile)
            found = sorted((cell.box for cell in model.Detector(network, config).find(pixels)), key=lambda box: -box[2])
            assert len(found) == 2, (side, left, found)
            assert found[0] == tuple(small)
            x0, y0, x1, y1 = found[1]
            assert large[0] <= x0 < x1 <= large[2]
            assert large[1] <= y0 < y1 <= large[3]
            assert (x1 - x0) * (y1 - y0) >= (side**2 if side <= 128 else 0.4 * side**2)


def test_noise_in_one_tile_does_not_remove_a_confident_cell_that_another_cuts() -> None:
    one = tiles.Seen(torch.tensor([[800.0, 10, 1024, 200]]), torch.tensor([1]), torch.tensor([0.9]), (0, 0, 1024, 1024))
    for score, label, left in ((0.8, 1, 1), (0.1, 1, 2), (0.8, 2, 2)):
        other = tiles.Seen(
            torch.tensor([[900.0, 10, 1100, 200]]), torch.tensor([label]), torch.tensor([score]), (896, 0, 1920, 1024)
        )
        assert len(tiles.joined([one, other], 1920, 1024)[0]) == left


def test_a_dino_trained_on_whole_images_reads_others_in_tiles_of_their_size() -> None:
    sizes = [(1500, 900), (300, 1700)]
    samples = [Sample("a.png", "x", np.zeros((h, w, 3), np.uint8), ()) for w, h in sizes]
    for recipe, tile in (({"architecture": "dino"}, 1700), ({"architecture": "dino", "window": 320}, 320), ({}, 1024)):
        assert DetectorTask(DetectorRecipe(backbone="small", **recipe), samples, []).config.tile == tile
    small = [Sample("a.png", "x", np.zeros((300, 300, 3), np.uint8), ())]
    assert DetectorTask(DetectorRecipe(backbone="small", architecture="dino"), small, []).config.tile == 1024


def test_boxes_stay_inside_and_scores_above_the_threshold(tiny: Path) -> None:
    pixels, _ = drawn(2)
    for cell in model.load(tiny / "detector").find(pixels, 0.3):
        assert 0 <= cell.box[0] < cell.box[2] <= pixels.shape[1]
        assert 0 <= cell.box[1] < cell.box[3] <= pixels.shape[0]
        assert cell.score >= 0.3
        assert cell.category == "NILM"


def test_a_folder_without_a_detector(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(UserError, match="no detector found"):
        model.load(tmp_path)
    (tmp_path / "config.json").write_text('{"backbone": "small", "categories": ["NILM"], "architecture": "yolo"}')
    with pytest.raises(UserError, match="choose one of faster-rcnn"):
        model.load(tmp_path)
    (tmp_path / "config.json").write_text('{"backbone": "small", "categories": ["NILM"]}')
    (tmp_path / "model.safetensors").write_bytes((tiny / "normal/pytorch_lora_weights.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"model\.safetensors"):
        model.load(tmp_path)


def test_images_are_not_resized_in_training_nor_in_use() -> None:
    for mode in (True, False):
        network = model.build(model.DetectorConfig(backbone="small", categories=("NILM",))).train(mode)
        images, _ = network.transform([torch.rand(3, 100, 140)], [{"boxes": torch.rand(1, 4), "labels": torch.ones(1)}])
        assert images.image_sizes == [(100, 140)]
