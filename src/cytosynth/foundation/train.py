"""`train foundation`: the autoencoder, then the denoiser with its text encoder, into one diffusers folder."""

from pathlib import Path

from diffusers import AutoencoderKL

from ..data import atomic, sources
from ..errors import UserError
from ..training.loop import Outcome, train
from ..training.progress import console
from .autoencoder import AutoencoderTask
from .denoiser import DenoiserTask, build
from .latents import weights_digest
from .recipe import AutoencoderRecipe, DenoiserRecipe
from .reconstruction import measure


def train_autoencoder(
    recipe: AutoencoderRecipe,
    run: Path,
    data_root: Path,
    max_minutes: float | None = None,
    start: Path | None = None,
) -> Outcome:
    """Train the autoencoder of a foundation in the run folder `run`, or continue it; then measure it.

    With `start`, an autoencoder's folder, training begins there: what `decoder_only` recipes need.
    """
    unseen = sources.held_out(recipe.data, data_root)

    def make() -> AutoencoderTask:
        vae = AutoencoderKL.from_pretrained(start, use_safetensors=True) if start else None
        return AutoencoderTask(recipe, sources.load(recipe.data, data_root), unseen, vae)

    outcome = train(make, recipe, run, title="autoencoder", max_minutes=max_minutes)
    if not unseen:
        return outcome
    trained = AutoencoderKL.from_pretrained(outcome.weights, use_safetensors=True).eval()
    summary = measure(trained, unseen, run / "validation.png").summary()
    atomic.write_json(run / "validation.json", {"step": outcome.step, "psnr_db": summary})
    console.print(f"held-out PSNR: {summary['mean']} dB on {summary['pictures']} pictures")
    return outcome


def train_denoiser(
    recipe: DenoiserRecipe, autoencoder: Path, run: Path, data_root: Path, max_minutes: float | None = None
) -> Outcome:
    """Train denoiser and text encoder on the latents of the `autoencoder` folder; exports the whole foundation."""
    if not (autoencoder / "config.json").exists():
        raise UserError(f"{autoencoder}: no trained autoencoder there; train the part 'autoencoder' first")

    vae = AutoencoderKL.from_pretrained(autoencoder, use_safetensors=True)
    recipe = recipe.model_copy(update={"encoder": weights_digest(vae.encoder, vae.quant_conv)})

    def make() -> DenoiserTask:
        samples = sources.load(recipe.data, data_root)
        return DenoiserTask(recipe, build(recipe, vae), samples, run / "latents")

    return train(make, recipe, run, title="denoiser", max_minutes=max_minutes)
