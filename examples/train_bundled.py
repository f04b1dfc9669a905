"""Train the bundled parts within a number of minutes, from one data file and small weight files to such files.

    python examples/train_bundled.py --pack DATA data.zip                  # DATA holds cric and lbc_x40
    python examples/train_bundled.py data.zip OUT --minutes 8 --parts text denoiser cell --start WEIGHTS

Every part but the text encoder begins with its weights in WEIGHTS (OUT of an earlier call), if they are there, and a
new optimiser that warms up. It ends as OUT/PART.NN.safetensors: averaged weights, half precision. What is not named is
taken from WEIGHTS.
It runs on Python 3.11 and 3.12, PyTorch 2.11 and newer, with the wheels of examples/wheels.txt and PYTHONPATH=src;
on a GPU where there is one. A call that is killed starts anew: exact resume is not promised across machines.
"""

import argparse
import shutil
import time
from pathlib import Path

from diffusers import UNet2DConditionModel

from cytosynth import devices
from cytosynth.cell import recipe as cell
from cytosynth.cell.train import train_cell
from cytosynth.config import override
from cytosynth.data import pack
from cytosynth.foundation.load import part, save
from cytosynth.foundation.names import CC_BY
from cytosynth.foundation.scratch import denoiser, recipe, shards, train
from cytosynth.training.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    "autoencoder": recipe.AUTOENCODER,
    "decoder": recipe.DECODER,
    "text": recipe.TEXT,
    "denoiser": recipe.DENOISER,
    "cell": cell.PRESETS["bundled"],
}
ON_GPU = {"autoencoder": 64, "decoder": 64, "text": 256, "denoiser": 256, "cell": 128}
"""Batch sizes."""


class Training:
    """The folders of one call, and what trains each part in them."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Unpack the data, and the weights to begin with."""
        self.given, self.work = given, given.out / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.data, self.sources = self.work / "data", pack.read(given.data, self.work / "data")
        self.newest: dict[str, Path] = {}
        for name in RECIPES:
            paths = shards.found(given.start, name) if given.start else []
            if paths:
                self.newest[name] = shards.read(paths, self.work / "start" / name)

    def recipe(self, name: str) -> Recipe:
        """Return the recipe of a part with the packed sets and the settings that were given for it."""
        chosen = RECIPES[name].model_copy(update={"data": self.sources, "max_steps": 10_000_000})
        own = [setting.removeprefix(f"{name}.") for setting in given_for(name, self.given.set)]
        return override(chosen, ([f"batch_size={ON_GPU[name]}"] if self.given.device != "cpu" else []) + own)

    def train(self, name: str, minutes: float) -> Path:
        """Train a part for `minutes`; return the folder of its weights."""
        run, begin, settings = self.work / name, self.newest.get(name), self.recipe(name)
        if name == "autoencoder":
            outcome = train.train_autoencoder(settings, run, self.data, minutes, begin)
        elif name == "decoder":
            outcome = train.train_decoder(settings, begin or self.newest["autoencoder"], run, self.data, minutes)
        elif name == "text":
            outcome = train.train_text(settings, run, self.data, minutes)
        elif name == "denoiser":
            outcome = train.train_denoiser(
                settings, self.autoencoder, self.newest["text"], run, self.data, minutes, begin
            )
            return outcome.weights / "unet"
        else:
            base = self.foundation(begin or self.newest["denoiser"])
            outcome = train_cell(settings.model_copy(update={"foundation": str(base)}), run, self.data, minutes)
        return outcome.weights

    @property
    def autoencoder(self) -> Path:
        """The folder of the sharpened autoencoder, or of the one before."""
        return self.newest.get("decoder") or self.newest["autoencoder"]

    def foundation(self, unet: Path) -> Path:
        """Write a foundation with the U-Net in the folder `unet`; return its folder."""
        parts = train.read_autoencoder(self.autoencoder), *train.read_text(self.newest["text"])
        model = denoiser.build(recipe.DENOISER, *parts)
        model.unet = part(UNet2DConditionModel, unet)
        save(model, self.work / "foundation", model.unet.dtype)
        return self.work / "foundation"


def given_for(name: str, settings: list[str]) -> list[str]:
    """Return those of `settings` that are for the part `name`."""
    return [setting for setting in settings if setting.startswith(f"{name}.")]


def main() -> None:
    """Read the command line, and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pack", action="store_true", help="write the data file OUT from the sets in the folder DATA")
    parser.add_argument("--minutes", type=float, default=8, help="of training, all parts together")
    parser.add_argument("--parts", nargs="+", choices=RECIPES, default=["text", "denoiser", "cell"])
    parser.add_argument("--start", type=Path, help="folder of earlier weight files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="PART.KEY=VALUE")
    given = parser.parse_args()
    if given.pack:
        pack.write(CC_BY, given.data, given.out)
        return
    deadline = time.monotonic() + 60 * given.minutes
    devices.use(given.device)
    training = Training(given)
    for number, name in enumerate(given.parts):
        left = max(deadline - time.monotonic(), 0) / 60 / (len(given.parts) - number)
        training.newest[name] = training.train(name, left)
        for path in shards.write(training.newest[name], given.out, name):
            print(path)
    shutil.rmtree(training.work)


if __name__ == "__main__":
    main()
