"""What a stranger's model could say of itself: every value in every configuration, tried on what loads and runs it."""

import copy
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

from conftest import save_classifier
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.settings import EditSettings
from cytosynth.classifier.model import CellClassifier
from cytosynth.detection import model as detectors
from cytosynth.errors import UserError
from cytosynth.evaluate.networks import dinov2
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings
from killing import asked_for

GREY = np.full((256, 256, 3), 200, dtype=np.uint8)
VALUES: list[Any] = [
    None, -1, 0, 1, 2, 3, 7, 10**9, 10**60, 1.5, float("nan"), "x", "", [], {}, True, False, [0], [-1], [64], [64] * 9,
    ["x"], [10**6] * 4, {"a": 1},
]  # fmt: skip
ABSENT = object()
LONGEST, MOST = 10, 1 << 30
"""Seconds, and bytes more than before."""
UNREAD = "model_index.json"
"""Written for diffusers, and read by nothing here."""


@dataclass(frozen=True)
class Case:
    """A model by name, its file of JSON, and the path of a key of that with another value, or `ABSENT`."""

    model: str
    file: str
    key: tuple[str | int, ...]
    value: Any

    @property
    def title(self) -> str:
        """What is changed, in words."""
        value = "absent" if self.value is ABSENT else repr(self.value)[:40]
        return f"{self.model}/{self.file} {'.'.join(map(str, self.key))}={value}"

    def changed(self, values: Any) -> Any:
        """Return `values` as the case has them."""
        values = holder = copy.deepcopy(values)
        for key in self.key[:-1]:
            holder = holder[key]
        if self.value is ABSENT:
            del holder[self.key[-1]]
        else:
            holder[self.key[-1]] = self.value
        return values


def models(tiny: Path, root: Path) -> dict[str, Callable[[Path], object]]:
    """Write a small model of each kind to `root`; return by name what loads and runs the one in a folder."""
    for name in ("foundation", "normal", "cell", "detector"):
        shutil.copytree(tiny / name, root / name)
    save_classifier(root / "classifier")
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)).save_pretrained(
        root / "dinov2"
    )
    (root / "dinov2/preprocessor_config.json").write_text(
        '{"image_processor_type": "BitImageProcessor", "do_resize": true, "size": {"shortest_edge": 64}, "do_rescale": '
        'true, "do_normalize": true, "crop_size": {"height": 56, "width": 56}, "rescale_factor": 0.00392, '
        '"do_center_crop": true, "resample": 3, "do_convert_rgb": true}'
    )
    for architecture in ("retinanet", "dino", "comparison-detector"):
        config = detectors.DetectorConfig(architecture=architecture, backbone="small", categories=("NILM",), tile=256)
        (root / architecture).mkdir()
        detectors.save(detectors.build(config), config, root / architecture)
    base = str(tiny / "foundation")
    edit = PlannedEdit((100.0, 100.0, 140.0, 140.0), "HSIL", 0)

    def field(foundation: Path | str, adapter: Path | None) -> None:
        generator = NormalImageGenerator(str(foundation), None if adapter is None else str(adapter))
        generator.field(0, 0, GenerateSettings(size=256, steps=1))

    def detect(folder: Path) -> None:
        detectors.load(folder).find(GREY, 0.1)

    def paint(folder: Path) -> None:
        CellEditor.load(base, str(folder)).paint([(GREY, edit)], EditSettings(steps=1, batch=1))

    def measure(folder: Path) -> None:
        network = dinov2.load(folder)
        network.module(network.prepare(GREY)[None])

    return {
        "foundation": lambda folder: field(folder, None),
        "normal": lambda folder: field(base, folder),
        "cell": paint,
        "detector": detect, "retinanet": detect, "dino": detect, "comparison-detector": detect,
        "classifier": lambda folder: CellClassifier.load(folder).probabilities([GREY], [edit.box]),
        "dinov2": measure,
    }  # fmt: skip


def cases(root: Path) -> list[Case]:
    """Return every change of the files of JSON of the models in `root`."""
    found = []
    for file in sorted(root.rglob("*.json")):
        if file.name != UNREAD:
            model, _, name = file.relative_to(root).as_posix().partition("/")
            keys = _keys(json.loads(file.read_text()))
            found += [Case(model, name, key, value) for key in keys for value in [*VALUES, ABSENT]]
    return found


def _keys(values: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each key of `values`, of a list that of its first entry, of a large mapping two."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(values, dict):
        inner = list(values.items())[: None if len(values) < 100 else 2]
    elif isinstance(values, list) and values and isinstance(values[0], dict | list):
        inner = [(0, values[0])]
    for key, value in inner:
        yield (*above, key)
        yield from _keys(value, (*above, key))


def problems(root: Path, tried: list[Case], run: dict[str, Callable[[Path], object]]) -> Iterator[str]:
    """Try each case; yield what ended in anything but an image or a line, or took more than `LONGEST` or `MOST`."""
    before, limits = signal.signal(signal.SIGALRM, _late), resource.getrlimit(resource.RLIMIT_DATA)
    for case in tried:
        file = root / case.model / case.file
        whole = file.read_text()
        file.write_text(json.dumps(case.changed(json.loads(whole))))
        resource.setrlimit(resource.RLIMIT_DATA, (asked_for() + MOST, limits[1]))
        signal.alarm(LONGEST)
        try:
            run[case.model](root / case.model)
        except UserError as error:
            if "\n" in str(error):
                yield f"{case.title}: more than a line: {error}"
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            yield f"{case.title}: {type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
            resource.setrlimit(resource.RLIMIT_DATA, limits)
            file.write_text(whole)
    signal.signal(signal.SIGALRM, before)


def _late(*_: object) -> None:
    raise TimeoutError(f"{LONGEST} s")
