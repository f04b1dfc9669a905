"""`train foundation`: the autoencoder, the text encoder, then the denoiser, into one diffusers folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
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
from ...training.images import noted
from ...training.loop import Outcome, train
from ..load import load, part
from . import regenerated
from .autoencoder import AutoencoderTask
from .decoder import DecoderTask
from .denoiser import DenoiserTask, build
from .recipe import AutoencoderRecipe, DecoderRecipe, DenoiserRecipe, TextRecipe
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

    With `start`, an autoencoder's folder, training begins there.
    """
    unseen = sources.held_out(recipe.data, data_root)

    def make() -> AutoencoderTask:
        vae = read_autoencoder(start) if start else None
        return AutoencoderTask(recipe, noted(sources.load(recipe.data, data_root), run, unseen), unseen, vae)

    outcome = train(make, recipe, run, title="autoencoder", max_minutes=max_minutes)
    return _measured(outcome, unseen, run, measure)


def train_decoder(
    recipe: DecoderRecipe,
    start: Path,
    run: Path,
    data_root: Path,
    max_minutes: float | None = None,
    measure: Measure | None = None,
) -> Outcome:
    """Sharpen the decoder of the autoencoder in the folder `start`, or continue in the run folder `run`; `measure` it.

    Raises UserError if there is no autoencoder, or the file of `regenerated` latents does not fit.
    """
    vae = read_autoencoder(start)
    latents = regenerated.read(recipe, vae)
    digests = {"encoder": weights_digest(vae.encoder, vae.quant_conv), "regenerated_digest": latents and latents.digest}
    recipe = recipe.model_copy(update={name: digest for name, digest in digests.items() if digest})
    unseen = sources.held_out(recipe.data, data_root)

    def make() -> DecoderTask:
        return DecoderTask(recipe, noted(sources.load(recipe.data, data_root), run, unseen), unseen, vae, latents)

    outcome = train(make, recipe, run, title="decoder", max_minutes=max_minutes)
    return _measured(outcome, unseen, run, measure)


def _measured(outcome: Outcome, unseen: Sequence[Sample], run: Path, measure: Measure | None) -> Outcome:
    """Write what `measure` says of the selected autoencoder on `unseen` images; return `outcome`."""
    if not unseen or measure is None or not devices.first():
        return outcome
    trained = part(AutoencoderKL, outcome.selected).eval()
    summary = measure(trained, unseen, run / "validation.png")
    atomic.write_json(run / "validation.json", {"step": outcome.selected_step, "psnr_db": summary})
    console.print(f"held-out PSNR: {summary['mean']} dB on {summary['images']} images")
    return outcome


def read_autoencoder(folder: Path) -> AutoencoderKL:
    """Return the autoencoder in `folder`; raise UserError if there is none."""
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no trained autoencoder found; first train the part 'autoencoder'")
    return part(AutoencoderKL, folder)


def train_text(recipe: TextRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Train the text encoder in the run folder `run`, or continue it; then measure how far apart the prompts are."""

    def make() -> TextTask:
        return TextTask(recipe, noted(sources.load(recipe.data, data_root), run))

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
        raise UserError(f"{folder}: no trained text encoder found; first train the part 'text'")
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
    start: Path | None = None,
) -> Outcome:
    """Train a denoiser on the latents of the `autoencoder` folder, under the text encoder in the `text` folder.

    With `start`, the folder of a U-Net, training begins there.
    Exports the whole foundation. Raises UserError if either is missing, or the foundation to begin with has
    another architecture.
    """
    vae = read_autoencoder(autoencoder)
    tokenizer, encoder = read_text(text)
    hashes = {"encoder": weights_digest(vae.encoder, vae.quant_conv), "text": weights_digest(encoder)}
    recipe = recipe.model_copy(update=hashes)

    def make() -> DenoiserTask:
        model = build(recipe, vae, tokenizer, encoder)
        if start:
            _begin(model.unet, part(UNet2DConditionModel, start), str(start))
        elif recipe.start:
            _begin(model.unet, load(recipe.start).unet, recipe.start)
        loaded = noted(sources.load(recipe.data, data_root), run)
        samples = varied.with_copies(loaded, recipe.augment, recipe.augment_copies, recipe.seed)
        return DenoiserTask(recipe, model, samples, run / "latents")

    return train(make, recipe, run, title="denoiser", max_minutes=max_minutes)


def _begin(unet: UNet2DConditionModel, other: UNet2DConditionModel, name: str) -> None:
    """Give `unet` the weights of the `other` one, called `name`; raise UserError if they do not fit."""
    try:
        unet.load_state_dict(other.state_dict())
    except RuntimeError:
        raise UserError(f"{name}: its denoiser has another architecture than the recipe") from None
