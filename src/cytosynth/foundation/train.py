"""`train foundation`: the autoencoder, then the denoiser with its text encoder, into one diffusers folder."""

from pathlib import Path

from diffusers import AutoencoderKL

from ..data import sources
from ..errors import UserError
from ..training.loop import Outcome, train
from ..training.recipe import Source
from .autoencoder import AutoencoderRecipe, AutoencoderTask
from .denoiser import DenoiserRecipe, DenoiserTask, build

CC_BY = [Source(root="cric", scale=0.5), Source(root="lbc_x40", scale=0.5)]
"""The sets that bundled weights may be trained on, at the x20-like working scale (nucleus about 10 px)."""

AUTOENCODER = AutoencoderRecipe(
    data=CC_BY, batch_size=8, learning_rate=3e-4, warmup_steps=50, weight_decay=0.0, max_steps=100_000,
    ema_decay=0.999, checkpoint_every=500, preview_every=500, log_every=50,
)  # fmt: skip

DENOISER = DenoiserRecipe(
    data=CC_BY, batch_size=16, learning_rate=5e-4, warmup_steps=200, weight_decay=1e-3, max_steps=100_000,
    ema_decay=0.9995, checkpoint_every=250, preview_every=500, log_every=50,
)  # fmt: skip


def held_out(recipe_sources: list[Source]) -> list[Source]:
    """Return the validation parts of `recipe_sources`."""
    return [source.model_copy(update={"split": "val"}) for source in recipe_sources]


def train_autoencoder(
    recipe: AutoencoderRecipe, run: Path, data_root: Path, max_minutes: float | None = None
) -> Outcome:
    """Train the autoencoder of a foundation in the run folder `run`, or continue it."""

    def build() -> AutoencoderTask:
        return AutoencoderTask(
            recipe,
            sources.load(recipe.data, data_root),
            sources.load(held_out(recipe.data), data_root, "reading held-out images"),
        )

    return train(build, recipe, run, title="autoencoder", max_minutes=max_minutes)


def train_denoiser(
    recipe: DenoiserRecipe, autoencoder: Path, run: Path, data_root: Path, max_minutes: float | None = None
) -> Outcome:
    """Train denoiser and text encoder on the latents of the `autoencoder` folder; exports the whole foundation."""
    if not (autoencoder / "config.json").exists():
        raise UserError(f"{autoencoder}: no trained autoencoder there; train the part 'autoencoder' first")

    def make() -> DenoiserTask:
        vae = AutoencoderKL.from_pretrained(autoencoder, use_safetensors=True)
        samples = sources.load(recipe.data, data_root)
        return DenoiserTask(recipe, build(recipe, vae), samples, run / "latents")

    return train(make, recipe, run, title="denoiser", max_minutes=max_minutes)
