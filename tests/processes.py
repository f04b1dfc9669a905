"""Every trainer at its smallest: `torchrun ... tests/processes.py TINY FIELDS OUT [PART ...]` trains all, or these.

Optimised by SGD: Adam divides a gradient by its own size, so that differences in the last digits become whole steps.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from conftest import AUTOENCODER, CATEGORIES, DENOISER, TEXT
from cytosynth import registry
from cytosynth.cell.recipe import CellRecipe
from cytosynth.cell.train import train_cell
from cytosynth.classifier.recipe import ClassifierRecipe
from cytosynth.classifier.train import train_classifier
from cytosynth.data.sources import Source
from cytosynth.detection.recipe import DetectorRecipe
from cytosynth.detection.train import train_detector
from cytosynth.distill.cell import distill_cell
from cytosynth.distill.normal import distill_normal
from cytosynth.distill.recipe import CellDistillRecipe, NormalDistillRecipe
from cytosynth.evaluate import reconstruction
from cytosynth.evaluate.detection.scoring import validation
from cytosynth.evaluate.held_out import HeldOut
from cytosynth.foundation.scratch.recipe import AutoencoderRecipe, DecoderRecipe, DenoiserRecipe, TextRecipe
from cytosynth.foundation.scratch.train import train_autoencoder, train_decoder, train_denoiser, train_text
from cytosynth.normal.recipe import NormalRecipe
from cytosynth.normal.train import train_normal
from cytosynth.training.loop import Outcome
from cytosynth.training.recipe import Recipe

STEPS = 2
DATA = [Source(root="drawn")]
COMMON = {"data": DATA, "max_steps": STEPS, "batch_size": 2, "log_every": 1, "checkpoint_every": 1, "optimizer": "sgd",
          "preview_every": 100, "seed": 3, "weight_decay": 0.0}  # fmt: skip
ADAPTERS: dict[str, dict[str, object]] = {
    "lora": {}, "svdiff": {"learning_rate": 10.0},
    "textual-inversion": {"prompt": "A cell <x>", "token": "<x>", "vectors": 2},
    "custom-diffusion": {"prompt": "A <x> cell", "token": "<x>"},
}  # fmt: skip
Part = tuple[Recipe, Callable[[Recipe, Path], Outcome]]


def parts(tiny: Path, fields: Path) -> dict[str, Part]:
    """Return a recipe and a trainer of each part, by name, on the models `tiny` and the data in `fields`."""
    small = {"foundation": str(tiny / "foundation")}
    found: dict[str, Part] = {
        "autoencoder": (
            AutoencoderRecipe(ema_decay=0.9, learning_rate=1e-2, **AUTOENCODER, **COMMON),
            lambda r, run: train_autoencoder(r, run, fields, measure=reconstruction.validation),
        ),
        "decoder": (
            DecoderRecipe(crops=[64], adversarial_start=1, r1_share=1.0, learning_rate=1e-2, **COMMON),
            lambda r, run: train_decoder(r, tiny / "foundation/vae", run, fields),
        ),
        "text": (TextRecipe(learning_rate=1e-2, **TEXT, **COMMON), lambda r, run: train_text(r, run, fields)),
        "denoiser": (
            DenoiserRecipe(ema_decay=0.9, learning_rate=1e-1, **DENOISER, **COMMON),
            lambda r, run: train_denoiser(r, tiny / "foundation/vae", tiny / "foundation", run, fields),
        ),
        "cell": (
            CellRecipe(variants=2, jitter=20, validate_every=1, validate_count=4, trainable="all", gate_rate=9.0,
                       learning_rate=1e-1, **small, **COMMON),
            lambda r, run: train_cell(r, run, fields),
        ),
        "features": (
            ClassifierRecipe(size=64, shift=4, categories=["NILM", "LSIL"], learning_rate=1e-2, **COMMON),
            lambda r, run: train_classifier(r, run, fields),
        ),
        "cross-fitting": (
            ClassifierRecipe(architecture="efficientnet-lite0", size=64, shift=4, categories=["NILM", "LSIL"], folds=2,
                             learning_rate=1e-2, **COMMON),
            lambda r, run: train_classifier(r, run, fields),
        ),
    }  # fmt: skip
    for name, settings in ADAPTERS.items():
        recipe = NormalRecipe.model_validate({"window": 128, "adapter": name, "learning_rate": 1.0} | small | COMMON
                                             | settings)  # fmt: skip
        found[name] = (recipe, lambda r, run: train_normal(r, run, fields, held_out=HeldOut))
    few = {"rank": 4, "learning_rate": 1.0, "average": 0.5, "validate_every": 0, **small, **COMMON}
    found["distilled normal"] = (
        NormalDistillRecipe.model_validate({"window": 64, "normal": str(tiny / "normal")} | few),
        lambda r, run: distill_normal(r, run, fields),
    )
    found["distilled cell"] = (
        CellDistillRecipe.model_validate({"cell": str(tiny / "cell")} | few),
        lambda r, run: distill_cell(r, run, fields),
    )
    for name in registry.DETECTORS:
        recipe = DetectorRecipe(architecture=name, backbone="small", window=128, turns=True, learning_rate=1e-2,
                                categories=list(CATEGORIES), **COMMON)  # fmt: skip
        found[name] = (recipe, lambda r, run: train_detector(r, run, fields, measure=validation))
    return found


if __name__ == "__main__":
    models, data, out = map(Path, sys.argv[1:4])
    for title, (made, start) in parts(models, data).items():
        if title in (sys.argv[4:] or [title]):
            start(made, out / title)
