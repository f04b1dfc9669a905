"""Local Cell Editing: turn chosen cells of an image into abnormal ones (Section III-C, Figure 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ..adapters.load import merge_distilled
from ..annotations import Box
from ..bethesda import abnormal_prompt
from ..data.image_files import Pixels
from ..devices import available
from ..errors import UsageError, UserError
from ..foundation import samplers, sampling, trial
from ..foundation.load import load, part
from ..foundation.model import Foundation
from ..foundation.names import BUNDLED, PrecisionSetting, PredictionType
from ..foundation.precision import at_a_time, prepare, resolved
from ..foundation.prompts import Prompts
from ..io.bundled import model_folder
from ..io.tensors import weights_digest
from . import editing, grain, own_decoder, patch, synthesizer
from .close_up import CloseUp
from .editing import Editing
from .planned_edit import Place
from .planned_edit import PlannedEdit as PlannedEdit
from .settings import EditSettings
from .stain import Stain, Transfer
from .training_images import TrainingImages


class CellEditor:
    """The Abnormal Cell Synthesizer with its foundation, ready to edit."""

    def __init__(
        self, model: Foundation, trained: Editing = editing.PAPER, training_images: TrainingImages | None = None
    ) -> None:
        """Use `model`, whose U-Net is a synthesizer `trained` on such regions and categories.

        With the statistics of its `training_images` it can edit images of another stain (`EditSettings.stain`).
        """
        synthesizer.check(model, model.name)
        self.model, self.prompts = model, Prompts(model)
        self.trained, self.box_scale, self.categories = trained, trained.box_scale, trained.categories
        self.training_images = training_images
        self.digest = self.distilled = ""

    @classmethod
    def load(
        cls,
        foundation: str | Foundation = BUNDLED,
        unet: str = BUNDLED,
        device: str = "cpu",
        precision: PrecisionSetting = "fp32",
        prediction_type: PredictionType | None = None,
        distilled: str | None = None,
    ) -> "CellEditor":
        """Load the synthesizer `unet` (a folder in diffusers' layout or `bundled`) on its `foundation`.

        A decoder next to its weights (`own_decoder`) is used instead of the foundation's, unless that has a tiny one.
        Then `distilled` weights, for few steps, are merged into it: 'bundled', a folder, a run or a file; None: none.

        If the foundation is already loaded, in float32, its autoencoder and text encoder are shared. The networks have
        `precision`; latents and samplers are always float32. `prediction_type` is what the U-Net predicts; None: what
        the foundation states.
        """
        path = model_folder(unet, "cell")
        if not (path / "config.json").exists():
            raise UserError(f"{path}: no Abnormal Cell Synthesizer found; config.json of a diffusers U-Net is expected")
        if not isinstance(foundation, Foundation):
            foundation = load(foundation, denoiser="unused", prediction_type=prediction_type)
        base, decoder = own_decoder.attach(foundation, path)
        model = replace(base, unet=part(UNet2DConditionModel, path))
        synthesizer.check(model, str(path))
        editor = cls(model.freeze().to(available(device)), editing.read(path), TrainingImages.read(path))
        trial.denoise(model, str(path), synthesizer.grounding([(8, 8, 40, 40)], trial.SIDE, model.pool_text([""])))
        own = [value for value in (decoder, editor.trained.zoom) if value not in ("", 1)]
        beside = [base.digest, model.conventions, *own]
        editor.digest = weights_digest(model.unet, beside=beside)
        if distilled:
            editor.distilled = merge_distilled(model, distilled, "cell", editor.digest)
            editor.digest = weights_digest(beside=[editor.digest, editor.distilled])
        prepare(model, resolved(precision, device))
        return editor

    def settled(self, settings: EditSettings, *, real: bool) -> EditSettings:
        """Return `settings` with what is None in them filled in, for `real` or generated images.

        Raises UsageError if the stain of the training images is asked for and not known, or a nucleus is scaled whose
        size is no condition of the synthesizer.
        """
        scale = self.box_scale if settings.box_scale is None else settings.box_scale
        fall = self.trained.fall if settings.fall is None else settings.fall
        known = self.training_images is not None
        nuclei = self.trained.nucleus_scale if settings.nucleus_scale is None else settings.nucleus_scale
        if problem := editing.lacking(settings.model_copy(update={"nucleus_scale": nuclei}), self.trained, known):
            raise UsageError(str(problem))
        stain = settings.stain
        if stain is None:
            stain = "outside" if real and known else False
        settled = {"box_scale": scale, "stain": stain, "nucleus_scale": nuclei, "fall": fall}
        return settings.model_copy(update=settled)

    def nucleus(self, edit: PlannedEdit, zoom: float = 1.0, scale: Mapping[str, float] | None = None) -> Box | None:
        """Return the square around the nucleus that `edit` requests, xyxy as its box; None if it requests none.

        The diameter follows the training cells of its category (`Editing.diameter`), times the `zoom` of a close-up
        and the factor of its category in `scale` (None: 1).
        """
        known = self.trained.diameter(edit.category, edit.seed)
        if known is None:
            return None
        diameter = known * zoom * (scale or {}).get(edit.category, 1.0)
        x, y = (edit.box[0] + edit.box[2]) / 2, (edit.box[1] + edit.box[3]) / 2
        return x - diameter / 2, y - diameter / 2, x + diameter / 2, y + diameter / 2

    def edit(self, pixels: Pixels, edits: Sequence[PlannedEdit], settings: EditSettings) -> Pixels:
        """Return a copy of (height, width, 3) `pixels` with every edit, put back by `patch.compose`.

        Every patch is taken from the unedited image, so the order of `edits` does not matter unless the changed regions
        overlap. Raises UserError for an image smaller than a patch.
        """
        painted = self.paint([(pixels, edit) for edit in edits], settings)
        return patch.compose(pixels, [(edit.box, new) for edit, new in zip(edits, painted, strict=True)], settings)

    def paint(self, requests: Sequence[tuple[Pixels, PlannedEdit]], settings: EditSettings) -> list[Pixels]:
        """Return the decoded (size, size, 3) patch of each request: an unedited image and an edit in it.

        Requests may be of different images. `settings.together` are denoised at a time, never fewer: an incomplete last
        batch is filled up by repeating its last request, since matrix products of another shape are rounded
        differently. On several threads of a CPU it is one at a time (`at_a_time`). So the pixels of a patch do not
        depend, to the bit on a CPU, on the other requests. Edits of different strength have different steps and are
        never in one batch.
        """
        if len({edit.strength for _, edit in requests}) > 1:
            return self._by_strength(requests, settings)
        if requests and requests[0][1].strength is not None:
            settings = settings.model_copy(update={"strength": requests[0][1].strength})
        places = self._placed(requests, settings)
        painted: list[Pixels] = []
        batch = at_a_time(settings.together, self.model.device)
        for first in range(0, len(places), batch):
            chosen = places[first : first + batch]
            decoded = self.patch(
                np.stack([one.close_up.of_patch(one.window) for one in chosen]),
                [replace(one.edit, box=one.close_up.inner(one.edit.box)) for one in chosen],
                settings, batch, [one.transfer for one in chosen], [one.close_up.zoom for one in chosen],
            )  # fmt: skip
            for one, new in zip(chosen, decoded, strict=True):
                painted.append(one.close_up.put_back(one.window, new, one.edit.box))
        return painted

    @torch.no_grad()
    def reconstruct(self, window: Pixels, box: Box, settings: EditSettings) -> Pixels:
        """Return the (size, size, 3) `window` encoded and decoded as in an edit of its region `box`, without denoising.

        It shows the change by the autoencoder and by the conversion of the stain alone.
        """
        way = self._transfer(window, always=settings.stain is True) if settings.stain else None
        close = CloseUp.of(box, self.trained.zoom)
        enlarged = close.of_patch(window)
        there = enlarged if way is None else way.there(enlarged)
        return close.put_back(window, self._decoded(self.model.encode_pixels(there[None]).float()[0], way), box)

    def _placed(self, requests: Sequence[tuple[Pixels, PlannedEdit]], settings: EditSettings) -> list[Place]:
        """Return where in its image each of `requests` is; raise UserError for an image smaller than a patch."""
        stains: dict[int, Transfer | None] = {}  # of each image once, however many of its cells are edited
        places = []
        for pixels, edit in requests:
            height, width = pixels.shape[:2]
            patch.check_size(width, height)
            at = patch.corner(edit.box, width, height)
            local = replace(edit, box=patch.inner(edit.box, at))
            if settings.stain and id(pixels) not in stains:
                stains[id(pixels)] = self._transfer(pixels, always=settings.stain is True)
            close_up = CloseUp.of(local.box, self.trained.zoom)
            places.append(Place(patch.window(pixels, at), local, close_up, stains.get(id(pixels))))
        return places

    def _strengths(self, edits: Sequence[PlannedEdit], size: int, settings: EditSettings) -> Tensor | None:
        """Return the strength of each latent cell of as many patches, (n, 1, h, w); None: it is the same everywhere."""
        fall = self.trained.fall if settings.fall is None else settings.fall
        if not fall:
            return None
        depths = [synthesizer.depth_of(edit.box, size, self.model.factor, fall) for edit in edits]
        most = samplers.kept(settings.steps, settings.strength) / settings.steps  # one step at least, as without a fall
        return most * torch.stack(depths).to(self.model.device)

    def _by_strength(self, requests: Sequence[tuple[Pixels, PlannedEdit]], settings: EditSettings) -> list[Pixels]:
        """Return the patches of `paint` for requests of several strengths."""
        painted: dict[int, Pixels] = {}
        for strength in {edit.strength for _, edit in requests}:
            alike = [index for index, (_, edit) in enumerate(requests) if edit.strength == strength]
            painted |= zip(alike, self.paint([requests[index] for index in alike], settings), strict=True)
        return [painted[index] for index in range(len(requests))]

    def _transfer(self, pixels: Pixels, always: bool) -> Transfer | None:
        """Return the transfer from the stain of the image `pixels` to that of the training images.

        None if it has no stain and, unless `always`, if its stain is within their range.
        """
        known, stain = self.training_images, Stain.of(pixels)
        if known is None or stain is None or not (always or known.stain_outside(pixels, stain)):
            return None
        return Transfer(stain, known.stain)

    @torch.no_grad()
    def patch(
        self,
        windows: Pixels,
        edits: Sequence[PlannedEdit],
        settings: EditSettings,
        fill: int = 0,
        transfers: Sequence[Transfer | None] = (),
        zooms: Sequence[float] = (),
    ) -> Pixels:
        """Return the decoded patches (n, size, size, 3) of as many `windows`, one edit each.

        Windows that are close-ups were enlarged by `zooms` (none: 1), and so were the boxes of the `edits`.

        At least `fill` are denoised: the last one is repeated. A window that has a transfer is edited in the stain of
        the training images.
        """
        model = self.model
        count = len(windows)
        filled = [*range(count), *[count - 1] * (fill - count)]
        edits = [edits[index] for index in filled]
        scale = self.trained.nucleus_scale if settings.nucleus_scale is None else settings.nucleus_scale
        nuclei = [
            self.nucleus(edit, zooms[index] if zooms else 1.0, scale) for edit, index in zip(edits, filled, strict=True)
        ]
        stains = transfers or [None] * count
        inputs = [window if way is None else way.there(window) for window, way in zip(windows, stains, strict=True)]
        clean = torch.cat([model.encode_pixels(window[None]) for window in inputs])[filled].float()
        latents = self.latents(clean, edits, nuclei, settings, [(edit.seed,) for edit in edits])
        decoded = np.stack([self._decoded(latent, way) for latent, way in zip(latents[:count], stains, strict=True)])
        if settings.paste == "box" and settings.grain:
            for index, edit in enumerate(edits[:count]):
                again = self._decoded(clean[index], stains[index])
                decoded[index] = grain.added(
                    decoded[index], windows[index], again, edit.box, edit.seed, settings.grain
                )  # fmt: skip
        return decoded

    @torch.no_grad()
    def latents(
        self,
        clean: Tensor,
        edits: Sequence[PlannedEdit],
        nuclei: Sequence[Box | None],
        settings: EditSettings,
        seeds: Sequence[Sequence[int]],
    ) -> Tensor:
        """Return the latents (n, C, h, w) of as many edits, before they are decoded.

        z_T comes from the forward process on z_0; mask and z_0,bg join it at every step (Figure 5a). With a `strength`
        below 1 it is z_t at a smaller t, which keeps more of the normal cell. Where `fall` is above 0 the strength is
        that of each place, so that the surroundings of the nucleus follow the cell that was there.

        Args:
            clean: (n, C, h, w) z_0: the encoded square patches, in float32.
            edits: box (xyxy, pixels of its patch) and category of each; their own seeds and strengths are not used.
            nuclei: the square around the nucleus that each requests, xyxy as the boxes; None: no such condition.
            settings: sampler, steps, strength, its fall, and guidance.
            seeds: of the noise of each.
        """
        factor = self.model.factor
        size = clean.shape[-1] * factor
        masks = torch.stack([synthesizer.mask_of(edit.box, size, factor) for edit in edits]).to(clean)
        discs = torch.stack([synthesizer.disc_of(nucleus, size, factor) for nucleus in nuclei]).to(clean)
        noises = torch.cat([sampling.noise((1, *clean.shape[1:]), *seed) for seed in seeds]).to(clean)
        text = self.prompts.encode([abnormal_prompt(edit.category) for edit in edits])
        ground = synthesizer.grounding(
            [edit.box for edit in edits], size, self.prompts.pool([edit.category for edit in edits])
        )
        denoise = sampling.guided(
            self.model.unet, text, self.prompts.encode([""] * len(edits)), guidance_scale=settings.guidance_scale,
            guidance_rescale=settings.guidance_rescale, guidance_interval=settings.guidance_interval,
            extra_channels=synthesizer.extra_channels(clean, masks, discs), grounding=ground,
        )  # fmt: skip
        return sampling.sample(
            denoise, samplers.build(settings.sampler, self.model.scheduler), noises, steps=settings.steps, clean=clean,
            strength=settings.strength, seeds=seeds, strengths=self._strengths(edits, size, settings),
        )  # fmt: skip

    def _decoded(self, latent: Tensor, transfer: Transfer | None) -> Pixels:
        """Return the (size, size, 3) pixels of one (4, h, w) latent, in the source's stain of `transfer`."""
        pixels = self.model.decode_latents(latent[None])[0]
        return pixels if transfer is None else transfer.back(pixels)
