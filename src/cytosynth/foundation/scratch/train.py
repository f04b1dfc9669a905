"""`train foundation`: the autoencoder, the text encoder, then the denoiser, into one diffusers folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from ... import devices
from ...bethesda import CATEGORIES, abnormal_prompt
from ...data import sources, varied
from ...data.sources import Sample
from ...errors import UserError
from ...io import atomic
from ...io.progress import console
from ...io.tensors import weights_digest
from ...training.loop import Outcome, train
from ..load import load, part
from .autoencoder import AutoencoderTask
from .denoiser import DenoiserTask, build
from .recipe import AutoencoderRecipe, DenoiserRecipe, TextRecipe
from .text import TextTask, similarity

Measure = Callable[[AutoencoderKL, Sequence[Sample], Path], dict[str, float]]
"""Returns `mean` and more of the PSNR of an autoencoder on samples, dB, and writes a sheet of them to a PNG."""


def train_autoencoder(
    recipe: AutoencoderRecipe,
    run: Path,
    data_root: Path,
    max_minutes: float | None = None,
    start: Path | None = None,
    measure: Measure | None = None,
) -> Outcome:
    """Train the autoencoder of a foundation in the run folder `run`, or continue it; then `measure` it.

    With `start`, an autoencoder's folder, training begins there: what `decoder_only` recipes need.
    """
    unseen = sources.held_out(recipe.data, data_root)

    def make() -> AutoencoderTask:
        vae = part(AutoencoderKL, start) if start else None
        return AutoencoderTask(recipe, sources.load(recipe.data, data_root), unseen, vae)

    outcome = train(make, recipe, run, title="autoencoder", max_minutes=max_minutes)
    if not unseen or measure is None or not devices.first():
        return outcome
    trained = part(AutoencoderKL, outcome.weights).eval()
    summary = measure(trained, unseen, run / "validation.png")
    atomic.write_json(run / "validation.json", {"step": outcome.step, "psnr_db": summary})
    console.print(f"held-out PSNR: {summary['mean']} dB on {summary['pictures']} images")
    return outcome


def train_text(recipe: TextRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Train the text encoder in the run folder `run`, or continue it; then measure how far apart the prompts are."""

    def make() -> TextTask:
        return TextTask(recipe, sources.load(recipe.data, data_root))

    outcome = train(make, recipe, run, title="text encoder", max_minutes=max_minutes)
    if not devices.first():
        return outcome
    tokenizer, encoder = read_text(outcome.weights)
    likeness = similarity(encoder, tokenizer, [abnormal_prompt(name) for name in CATEGORIES])
    atomic.write_json(
        run / "validation.json",
        {
            "step": outcome.step,
            "prompts": list(CATEGORIES),
            "cosine_similarity": [[round(value, 3) for value in row] for row in likeness.tolist()],
        },
    )
    return outcome


def read_text(folder: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Return the tokenizer and the text encoder in `folder` (`tokenizer`, `text_encoder`)."""
    if not (folder / "text_encoder" / "config.json").exists():
        raise UserError(f"{folder}: no trained text encoder there; train the part 'text' first")
    disable_progress_bar()
    encoder = part(CLIPTextModel, folder / "text_encoder")
    return CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True), encoder


def train_denoiser(
    recipe: DenoiserRecipe,
    autoencoder: Path,
    text: Path,
    run: Path,
    data_root: Path,
    max_minutes: float | None = None,
) -> Outcome:
    """Train a denoiser on the latents of the `autoencoder` folder, under the text encoder in the `text` folder.

    Exports the whole foundation. Raises UserError where either is missing, or the foundation to begin with has
    another architecture.
    """
    if not (autoencoder / "config.json").exists():
        raise UserError(f"{autoencoder}: no trained autoencoder there; train the part 'autoencoder' first")
    vae = part(AutoencoderKL, autoencoder)
    tokenizer, encoder = read_text(text)
    hashes = {"encoder": weights_digest(vae.encoder, vae.quant_conv), "text": weights_digest(encoder)}
    recipe = recipe.model_copy(update=hashes)

    def make() -> DenoiserTask:
        model = build(recipe, vae, tokenizer, encoder)
        if recipe.start:
            try:
                model.unet.load_state_dict(load(recipe.start).unet.state_dict())
            except RuntimeError:
                raise UserError(f"{recipe.start}: its denoiser has another architecture than the recipe") from None
        loaded = sources.load(recipe.data, data_root)
        samples = varied.with_copies(loaded, recipe.augment, recipe.augment_copies, recipe.seed)
        return DenoiserTask(recipe, model, samples, run / "latents")

    return train(make, recipe, run, title="denoiser", max_minutes=max_minutes)
