"""The bundled models: there, small, marked, and good enough that the pipeline does what it says."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytosynth.adapters import lora
from cytosynth.bethesda import ABNORMAL, CATEGORIES, NILM
from cytosynth.cell.edit import CellEditor, PlannedEdit
from cytosynth.cell.quality.classifier import load_gate
from cytosynth.cell.settings import EditSettings, GateSettings
from cytosynth.config import override
from cytosynth.data.check import check
from cytosynth.data.formats import coco
from cytosynth.detection import model as detectors
from cytosynth.errors import UsageError
from cytosynth.foundation.load import load
from cytosynth.io.bundled import BUNDLED, LIQUID, bundled, model_folder, of_preparation
from cytosynth.normal.generate import NormalImageGenerator
from cytosynth.normal.settings import GenerateSettings
from cytosynth.synthesis import synthesize
from cytosynth.synthesis.card import CLASSES
from cytosynth.synthesis.settings import PipelineSettings

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def test_all_weights_are_safetensors_of_at_most_94_mb_with_their_licence() -> None:
    root = bundled("foundation").parent
    files = [path for path in root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 94_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".txt"}
    for name in ("foundation", "normal", "normal_liquid", "cell", "detector", "classifier"):
        card = (root / name / "README.md").read_text()
        assert "CC BY 4.0" in card
        assert "CRIC" in card
        assert "Not for diagnosis" in card


def test_the_data_card_says_of_the_bundled_cells_what_was_measured() -> None:
    results = Path(__file__).resolve().parents[1] / "results"

    def shares(table: str, of: str) -> list[str]:
        rows = json.loads((results / f"{table}.json").read_text())["rows"]
        measured = {row["category"]: row[of] for row in rows if row["quantity"] == "classified as it, share"}
        return [f"{float(measured[name].split()[0]):.2g}" for name in ABNORMAL]

    edited, few, real = shares("cells", "edited"), shares("cells_fast", "edited"), shares("cells", "real")
    assert "{} of the cells edited into ASC-US, {} of ASC-H, {} of LSIL and {} of HSIL".format(*edited) in CLASSES
    assert "with `--fast` to {}, {}, {} and {};".format(*few) in CLASSES
    assert "of real cells of those categories {}, {}, {} and {}".format(*real) in CLASSES


def test_a_normal_field_is_neither_blank_nor_noise_and_depends_on_seed_and_index_alone() -> None:
    generator = NormalImageGenerator()
    settings = GenerateSettings(size=256, steps=10)
    first, again = generator.field(1, 7, settings), generator.field(1, 7, settings)
    other = generator.field(1, 8, settings)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for pixels in (first, other):
        grey = pixels.mean(axis=2)
        assert grey.std() > 5, "not blank"
        assert np.abs(np.diff(grey, axis=1)).mean() < 0.5 * grey.std(), "neighbours resemble each other"


def test_the_lora_changes_what_the_foundation_generates() -> None:
    with_lora, without = NormalImageGenerator(), NormalImageGenerator(adapter=None)
    settings = GenerateSettings(size=128, steps=4)
    assert not np.array_equal(with_lora.field(0, 0, settings), without.field(0, 0, settings))
    assert (bundled("normal") / lora.WEIGHTS).exists()


def test_the_category_changes_the_painted_cell() -> None:
    """At one seed, on one field: what is asked for shows in the region, and nowhere else."""
    editor = CellEditor.load()
    field = NormalImageGenerator().field(0, 0, GenerateSettings(size=256, steps=10))
    box, settings = (90.0, 90.0, 166.0, 166.0), EditSettings(steps=10)
    painted = {
        category: editor.edit(field, [PlannedEdit(box, category, 1)], settings).astype(float) for category in ABNORMAL
    }
    for first, second in combinations(ABNORMAL, 2):
        changed = np.abs(painted[first] - painted[second])
        assert changed[90:166, 90:166].mean() > 3
        assert changed[:80].max() == 0


def test_the_pipeline_on_bundled_models_places_cells_at_full_size(tmp_path: Path) -> None:
    data = synthesize.synthesize(
        tmp_path / "set", count=1, settings=override(PipelineSettings(), ["normal.steps=8", "cell.steps=4"])
    )
    assert check(tmp_path / "set") == []
    assert Image.open(data.path(data.images[0])).size == (1024, 1024)
    assert data.images[0].cells, "cells were found and edited"
    record = json.loads((tmp_path / "set/provenance.jsonl").read_text())
    assert set(record["models"]) == {"cell", "detector", "foundation", "low_frequencies", "normal"}


def test_the_detector_finds_cells_of_all_categories_on_images_it_never_saw() -> None:
    root = SHARED / "cric"
    if not root.is_dir():
        pytest.skip(f"needs the CRIC images in {SHARED.name}/cric beside the checkout")
    from cytosynth.data import sources
    from cytosynth.data.sources import Source
    from cytosynth.evaluate.detection.scoring import measure

    samples = sources.load([Source(root="cric", scale=0.5, split="val")], SHARED)
    scores = measure(detectors.load(bundled("detector")), samples)
    assert tuple(scores.per_category) == (NILM, *ABNORMAL)
    assert scores.per_category[NILM] > 0.45
    assert min(scores.per_category[name] for name in ("ASC-US", "LSIL", "HSIL")) > 0.2


def test_the_autoencoder_keeps_images_it_never_saw() -> None:
    root = SHARED / "cric"
    if not root.is_dir():
        pytest.skip(f"needs the CRIC images in {SHARED.name}/cric beside the checkout")
    from cytosynth.data import sources
    from cytosynth.data.sources import Source
    from cytosynth.evaluate.reconstruction import measure

    samples = sources.load([Source(root="cric", scale=0.5, split="val")], SHARED)[:6]
    assert measure(load("bundled").freeze().vae, samples).summary()["mean"] > 25


def test_own_normal_images_are_edited(tmp_path: Path) -> None:
    root = SHARED / "cric"
    if not root.is_dir():
        pytest.skip(f"needs the CRIC images in {SHARED.name}/cric beside the checkout")
    settings = override(PipelineSettings(scale=0.5), ["cell.steps=4"])
    data = synthesize.edit(root, tmp_path / "r2s", label="Negative", limit=2, settings=settings)
    assert check(tmp_path / "r2s") == []
    assert all(image.cells for image in data.images)
    assert coco.read(tmp_path / "r2s").licences[0]["name"] == "CC BY 4.0"


def test_the_bundled_gate_is_a_classifier_of_all_five_classes() -> None:
    gate = load_gate("bundled", GateSettings(), Path())
    assert gate.classifier is not None and gate.classifier.classes == CATEGORIES
    gate.check(ABNORMAL)
    assert sum(path.stat().st_size for path in bundled("classifier").iterdir()) <= 10_000_000


def test_no_bundled_model_has_seen_what_is_held_out() -> None:
    """By digest, of the images that are here: `centre`, a lab's own, and `test`; see docs/protocol.md."""
    if not (SHARED / "cric").is_dir():
        pytest.skip(f"{SHARED / 'cric'} is not here")
    from cytosynth.augmentation import leaks, seen
    from cytosynth.data.sources import Source
    from cytosynth.errors import UserError

    roles = ("foundation", "normal", "cell", "detector", "gate", "fast_normal", "fast_cell")
    held = [Source(root="cric", split=part) for part in ("centre", "test", "unannotated")]
    leaks.unseen(dict.fromkeys(roles, "bundled"), held, SHARED)
    known = seen.of_model("bundled", "cell", SHARED)
    assert known is not None
    assert known.items() >= seen.digests(Source(root="cric", split="train"), SHARED).items()
    with pytest.raises(UserError, match="was trained or chosen on cric/"):
        leaks.unseen({"cell": "bundled"}, [Source(root="cric", split="val")], SHARED)


def test_a_preparation_selects_the_bundled_adapter() -> None:
    assert of_preparation("conventional", BUNDLED) == BUNDLED
    assert of_preparation("liquid", BUNDLED) == LIQUID
    assert of_preparation("conventional", "mine") == "mine"
    assert model_folder(LIQUID, "normal") == bundled("normal_liquid") != model_folder(BUNDLED, "normal")
    assert model_folder(LIQUID, "cell") == bundled("cell"), "one synthesizer for both"
    with pytest.raises(UsageError, match="--preparation liquid selects a bundled adapter, and --normal mine another"):
        of_preparation("liquid", "mine")
    with pytest.raises(UsageError, match="--preparation wet: unknown; choose from conventional, liquid"):
        of_preparation("wet", BUNDLED)
