"""The scripts of docs/robustness.md, run as they stand there against a stand-in for Ultralytics.

The stand-in follows what the public program does where the scripts touch it: how `data.yaml` is resolved, where labels
lie, what `Results.boxes` and `trainer.best` hold. It learns by heart, so that an exact run finds every cell.
"""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from cytosynth.annotations import Cell
from cytosynth.data import convert
from cytosynth.data.sources import Sample
from cytosynth.detection.external import ExternalCommand, TrainedCommand

ROOT = Path(__file__).parents[2]
SCRIPT = re.compile(r"```python\n# (yolo_\w+\.py)[^\n]*\n(.*?)```", re.DOTALL)
STAND_IN = """
import hashlib, json, types
from pathlib import Path
import numpy as np, torch, yaml
from PIL import Image

DATASETS_DIR = Path("/no such folder of data sets")

def seen(path):
    return hashlib.sha256(np.asarray(Image.open(path).convert("RGB")).tobytes()).hexdigest()

class Boxes:
    def __init__(self, rows):
        self.xyxy, self.cls, self.conf = (torch.tensor([row[i] for row in rows]) for i in range(3))
    def __len__(self):
        return len(self.cls)
    def __getitem__(self, index):
        one = Boxes.__new__(Boxes)
        one.xyxy, one.cls, one.conf = self.xyxy[[index]], self.cls[[index]], self.conf[[index]]
        return one
    def __iter__(self):
        return (self[index] for index in range(len(self)))

class YOLO:
    def __init__(self, weights):
        self.known = json.loads(Path(weights).read_text()) if Path(weights).is_file() else {"names": {}, "of": {}}
        self.names = {int(key): name for key, name in self.known["names"].items()}
    def train(self, data, epochs, seed, project):
        content = yaml.safe_load(Path(data).read_text())
        root = Path(content.get("path") or Path(data).parent)
        if not root.exists() and not root.is_absolute():
            root = DATASETS_DIR / root
        assert {"train", "val", "names"} <= content.keys(), content
        for part in ("train", "val"):
            place = (root / content[part]).resolve()
            assert place.exists(), f"Dataset images not found, missing path {place}"
        place, of = (root / content["train"]).resolve(), {}
        lines = place.read_text().split() if place.is_file() else []
        files = [place.parent / line for line in lines] if place.is_file() else sorted(place.rglob("*.*"))
        for file in files:
            label = Path("/labels/".join(str(file).rsplit("/images/", 1))).with_suffix(".txt")
            width, height = Image.open(file).size
            of[seen(file)] = [
                ([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], kind, 0.9)
                for kind, x, y, w, h in (map(float, line.split()) for line in label.read_text().splitlines())
            ]
        best = Path(project) / "train/weights/best.pt"
        best.parent.mkdir(parents=True)
        best.write_text(json.dumps({"names": content["names"], "of": of}))
        self.trainer = types.SimpleNamespace(best=best)
        return types.SimpleNamespace(names=content["names"])  # metrics: these know no folder any more
    def predict(self, image, conf, verbose):
        rows = self.known["of"].get(seen(image), [])
        return [types.SimpleNamespace(boxes=Boxes(rows) if rows else [])]
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the scripts, from where the stand-in is imported; the working folder is another."""
    place = tmp_path / "scripts"
    (place / "ultralytics").mkdir(parents=True)
    (place / "ultralytics/__init__.py").write_text(STAND_IN)
    found = SCRIPT.findall((ROOT / "docs/robustness.md").read_text())
    assert [name for name, _ in found] == ["yolo_predict.py", "yolo_train.py"]
    for name, text in found:
        (place / name).write_text(text)
    paths = [str(place), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return place


def samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(3):
        pixels = rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)
        cells = [Cell((10.0 + number, 12, 40, 44), "NILM"), Cell((60, 30, 90, 66), "HSIL")][: 2 - number // 2]
        found.append(Sample(f"{number}.png", "set", pixels, tuple(cells)))
    return found


def test_the_scripts_train_and_find(scripts: Path, tmp_path: Path) -> None:
    known = samples()
    asked = ["{train}", "{images}", "{annotations}", "{results}", "{seed}"]
    words = (sys.executable, str(scripts / "yolo_train.py"), *asked)
    finder = TrainedCommand(words, known, ("NILM", "HSIL"), 3, 100)
    unseen = np.zeros((64, 64, 3), np.uint8)
    found = finder.find_all([*((one.name, one.pixels) for one in known), ("new.png", unseen)], 4, 0.05, "clean")
    for one, cells in zip(known, found, strict=False):
        assert [cell.category for cell in cells] == [cell.category for cell in one.cells]
        assert [cell.score for cell in cells] == pytest.approx([0.9] * len(cells))
        assert np.allclose([cell.box for cell in cells], [cell.box for cell in one.cells], atol=1e-3)
    assert found[3] == []


def test_the_script_predicts_with_classes_in_another_order(scripts: Path, tmp_path: Path) -> None:
    """A class of YOLO is found among the categories by its name."""
    from cytosynth.detection.external import written

    known = samples()
    data = written(((s.name, s.pixels) for s in known), 3, ("HSIL", "NILM"), tmp_path / "set", [s.cells for s in known])
    convert.convert(data.folder.parent, tmp_path / "yolo", None, "yolo")
    content = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text())
    assert "path" not in content, "Ultralytics would look for it in its own folder of data sets"
    sys.path.insert(0, str(scripts))
    try:
        import ultralytics

        ultralytics.YOLO("none").train(data=tmp_path / "yolo/data.yaml", epochs=1, seed=0, project=tmp_path / "run")
    finally:
        sys.path.remove(str(scripts))
        sys.modules.pop("ultralytics", None)
    best = tmp_path / "run/train/weights/best.pt"
    words = (sys.executable, str(scripts / "yolo_predict.py"), str(best), "{images}", "{annotations}", "{results}")
    found = ExternalCommand(words, ("NILM", "HSIL")).find_all(((s.name, s.pixels) for s in known), 3, 0.05, "clean")
    assert [[cell.category for cell in cells] for cells in found] == [[c.category for c in s.cells] for s in known]
