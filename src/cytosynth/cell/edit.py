"""Local Cell Editing: turn chosen cells of an image into abnormal ones (Section III-C, Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from ..annotations import Box
from ..bethesda import abnormal_prompt
from ..data.image_files import Pixels
from ..devices import available
from ..errors import UserError
from ..foundation import samplers, sampling, trial
from ..foundation.load import load, part
from ..foundation.model import DTYPES, Foundation
from ..foundation.names import BUNDLED, Precision
from ..io.bundled import model_folder
from ..io.tensors import weights_digest
from . import editing, grain, patch, synthesizer
from .editing import Editing
from .settings import EditSettings


@dataclass(frozen=True)
class PlannedEdit:
    """One edit: the region to repaint (xyxy whole pixels), what to make of it, and its seed."""

    box: Box
    category: str
    seed: int


class CellEditor:
    """The Abnormal Cell Synthesizer with its foundation, ready to edit."""

    def __init__(self, model: Foundation, trained: Editing = editing.PAPER) -> None:
        """Use `model`, whose U-Net is a synthesizer `trained` on such regions and categories."""
        channels = 2 * model.channels + 1
        if model.unet.config.in_channels != channels or model.unet.config.attention_type != "gated":
            raise UserError(f"{model.name}: its U-Net has no {channels} input channels with gated attention")
        text_channels = model.text_encoder.config.hidden_size
        if model.unet.config.cross_attention_dim != text_channels:
            raise UserError(
                f"the cell synthesizer reads {model.unet.config.cross_attention_dim} text channels, the foundation "
                f"{model.name} gives {text_channels}: it was trained on another foundation"
            )
        self.model = model
        self.box_scale, self.categories = trained.box_scale, trained.categories
        self.digest = ""

    @classmethod
    def load(
        cls,
        foundation: str | Foundation = BUNDLED,
        unet: str = BUNDLED,
        device: str = "cpu",
        precision: Precision = "fp32",
    ) -> "CellEditor":
        """Load the synthesizer `unet` (a folder in diffusers' layout or `bundled`) on its `foundation`.

        A foundation that is loaded already, in float32, lends its autoencoder and text encoder. The networks have
        `precision`; latents and samplers are float32 whatever it is.
        """
        path = model_folder(unet, "cell")
        if not (path / "config.json").exists():
            raise UserError(f"{path}: no Abnormal Cell Synthesizer there (config.json of a diffusers U-Net)")
        base = foundation if isinstance(foundation, Foundation) else load(foundation, denoiser="unused")
        model = replace(base, unet=part(UNet2DConditionModel, path))
        editor = cls(model.freeze().to(available(device)), editing.read(path))
        trial.denoise(model, str(path), synthesizer.grounding([(8, 8, 40, 40)], trial.SIDE, model.pool_text([""])))
        editor.digest = weights_digest(model.unet, beside=[base.digest, model.conventions])
        model.to(DTYPES[precision])
        return editor

    def settled(self, settings: EditSettings, *, real: bool) -> EditSettings:
        """Return `settings` with the region and the grain that they leave open, for `real` or generated images."""
        scale = self.box_scale if settings.box_scale is None else settings.box_scale
        amount = settings.grain if settings.paste == "box" else 0.0
        amount = float(real) if amount is None else amount
        return settings.model_copy(update={"box_scale": scale, "grain": amount})

    def edit(self, pixels: Pixels, edits: Sequence[PlannedEdit], settings: EditSettings) -> Pixels:
        """Return a copy of (height, width, 3) `pixels` with every edit made, put back as `patch.compose` says.

        Every patch is taken from the unedited image, so the order of `edits` does not matter where what they
        change does not overlap. Raises UserError for an image smaller than a patch.
        """
        painted = self.paint([(pixels, edit) for edit in edits], settings)
        return patch.compose(pixels, [(edit.box, new) for edit, new in zip(edits, painted, strict=True)], settings)

    def paint(self, requests: Sequence[tuple[Pixels, PlannedEdit]], settings: EditSettings) -> list[Pixels]:
        """Return the decoded (size, size, 3) patch of each request: an unedited image and an edit in it.

        They may be of different images. `settings.batch` are denoised at a time, never fewer: a last batch that is
        not full is filled up by repeating its last request. Matrix products of another shape round otherwise, so
        this makes the pixels of a patch independent, to the bit on a CPU, of what else is edited beside it.
        """
        windows, local = [], []
        for pixels, edit in requests:
            height, width = pixels.shape[:2]
            patch.check_size(width, height)
            at = patch.corner(edit.box, width, height)
            windows.append(patch.window(pixels, at))
            local.append(PlannedEdit(patch.inner(edit.box, at), edit.category, edit.seed))
        painted: list[Pixels] = []
        for first in range(0, len(requests), settings.batch):
            chosen = slice(first, first + settings.batch)
            painted += list(self.patch(np.stack(windows[chosen]), local[chosen], settings, fill=settings.batch))
        return painted

    @torch.no_grad()
    def patch(self, windows: Pixels, edits: Sequence[PlannedEdit], settings: EditSettings, fill: int = 0) -> Pixels:
        """Return the decoded patches (n, size, size, 3) of as many `windows`, one edit each.

        z_T comes from the forward process on z_0; mask and z_0,bg join it at every step (Figure 5a). With a
        `strength` below 1 it is z_t of an earlier step, from which more of the normal cell shines through.
        At least `fill` are denoised: the last one is repeated.
        """
        model = self.model
        count, size = windows.shape[:2]
        filled = [*range(count), *[count - 1] * (fill - count)]
        edits = [edits[index] for index in filled]
        clean = torch.cat([model.encode_pixels(window[None]) for window in windows])[filled].float()
        masks = torch.stack([synthesizer.mask_of(edit.box, size, model.factor) for edit in edits]).to(clean)
        noises = torch.cat([sampling.noise((1, *clean.shape[1:]), edit.seed) for edit in edits]).to(clean)
        text = model.encode_text([abnormal_prompt(edit.category) for edit in edits])
        ground = synthesizer.grounding(
            [edit.box for edit in edits], size, model.pool_text([edit.category for edit in edits])
        )
        denoise = sampling.guided(
            model.unet, text, model.encode_text([""] * len(edits)), guidance_scale=settings.guidance_scale,
            guidance_rescale=settings.guidance_rescale, extra_channels=synthesizer.extra_channels(clean, masks),
            grounding=ground,
        )  # fmt: skip
        latents = sampling.sample(
            denoise, samplers.build(settings.sampler, model.scheduler), noises, steps=settings.steps, clean=clean,
            strength=settings.strength, seeds=[(edit.seed,) for edit in edits],
        )  # fmt: skip
        decoded = np.concatenate([model.decode_latents(latent[None]) for latent in latents[:count]])
        if settings.paste == "box" and settings.grain:
            for index, edit in enumerate(edits[:count]):
                again = model.decode_latents(clean[index][None])[0]
                decoded[index] = grain.added(
                    decoded[index], windows[index], again, edit.box, edit.seed, settings.grain
                )  # fmt: skip
        return decoded
