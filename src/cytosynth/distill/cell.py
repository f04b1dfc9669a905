"""`distill cell`: the Abnormal Cell Synthesizer in few steps."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from ..adapters.distilled import DistilledCard
from ..bethesda import NILM
from ..cell import patch, synthesizer
from ..cell.crops import Crop, CropTask, evenly, read
from ..cell.edit import CellEditor, PlannedEdit
from ..cell.settings import EditSettings
from ..data.image_files import Pixels
from ..data.preview import grid, save_png
from ..errors import UserError
from ..evaluate import distance
from ..evaluate.networks import features
from ..evaluate.networks.extractor import Extractor, Features
from ..foundation import sampling
from ..io import atomic
from ..io.progress import meter
from ..training.loop import Outcome, train
from ..training.task import Batch, Losses
from . import export
from .loss import loss
from .recipe import CellDistillRecipe
from .student import Student

ABOUT = 128
"""Side of the part of a patch about the cell in which a score is taken, pixels."""
BATCH = 8
"""Cells that are edited at a time for a score."""


class CellDistillTask(CropTask):
    """Distils a synthesizer: box, class, mask and z_0,bg are the same, and without noise, in teacher and student."""

    def __init__(
        self, recipe: CellDistillRecipe, teacher: CellEditor, crops: Sequence[Crop], held_out: Sequence[Crop], run: Path
    ) -> None:
        """Add a LoRA to the `teacher` and encode `crops`; latents and what scores need are kept in `run`.

        Raises UserError if the teacher does not make a category of the crops.
        """
        super().__init__(recipe, teacher.model, crops, held_out, run / "latents")
        self.recipe, self.run, self.editor = recipe, run, teacher
        self.abnormal = [name for name in self.names if name != NILM]
        unknown = [name for name in self.abnormal if name not in teacher.categories]
        if unknown or not self.abnormal:
            raise UserError(
                f"categories: {unknown[0] if unknown else 'no abnormal cell in the data'}; the synthesizer makes "
                f"{', '.join(teacher.categories)}"
            )
        self.card = DistilledCard(
            stage="cell", sampler=recipe.sampler, steps=recipe.steps, guidance_scale=recipe.guidance_scale,
            teacher=teacher.digest, foundation=Path(self.model.name).name,
        )  # fmt: skip
        self.student = Student(self.model.unet, recipe.rank, recipe.average)
        if recipe.gradient_checkpointing:
            self.model.unet.enable_gradient_checkpointing()

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return latents (n, C, h, w) of patches, masks, nuclei, boxes, and the category to be made of each."""
        drawn = self.drawn(rng, size)
        others = torch.as_tensor(rng.integers(len(self.abnormal), size=size))
        wanted = torch.tensor([self.names.index(name) for name in self.abnormal])[others]
        normal = torch.tensor([name == NILM for name in self.names])[drawn["category"]]
        category = torch.where(normal, wanted, drawn["category"])
        return drawn | {"category": category, "nuclei": self._nuclei(drawn, category, rng)}

    def _nuclei(self, drawn: dict[str, Tensor], category: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the cover of the nuclei that edits of `drawn` into each `category` would request (n, 1, h, w).

        Without `nucleus_scale`, which says how large they are requested, not how large they become.
        """
        side, factor = drawn["latents"].shape[-1], self.model.factor
        discs = []
        for box, zoom, index, seed in zip(
            drawn["boxes"].tolist(), drawn["zooms"].tolist(), category,
            rng.integers(2**32, size=len(category)), strict=True,
        ):  # fmt: skip
            edit = PlannedEdit(box, self.names[int(index)], int(seed))
            discs.append(synthesizer.disc_of(self.editor.nucleus(edit, zoom), side * factor, factor))
        return torch.stack(discs)

    def trained_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the average of the product."""
        return ((f"student.{name}", value) for name, value in self.student.named_buffers(recurse=False))

    def forward(self, batch: Batch) -> Losses:
        """Return the consistency loss of `batch`, weighted inside the masks."""
        self.student.follow(self.step)
        latents, masks, category = batch["latents"], batch["masks"], batch["category"]
        extra, size = synthesizer.extra_channels(latents, masks, batch["nuclei"]), latents.shape[-1] * self.model.factor
        ground = synthesizer.grounding(batch["boxes"].tolist(), size, self.pooled[category])
        text, empty = self.text[category + 1], self.text[:1].expand(len(latents), -1, -1)

        def conditioned(unet: Any, guidance_scale: float) -> sampling.Denoiser:
            return sampling.guided(unet, text, empty, guidance_scale, extra_channels=extra, grounding=ground)

        weight = 1 + (self.recipe.inside_weight - 1) * (1 - masks)
        return {"loss": loss(self.student, self.model.scheduler, self.recipe, latents, conditioned, weight)}

    def preview(self, folder: Path, step: int) -> None:
        """Write a grid: a row for a held-out crop of each category, first as it is, then as every category."""
        tiles = []
        with self.student.shipped():
            for row, crop in enumerate(evenly(self.held_out, self.names, len(self.names))):
                edits = [PlannedEdit(crop.box, name, seed=row) for name in self.abnormal]
                tiles += [crop.pixels, *self._edited([crop] * len(edits), edits, self._few())]
        if tiles:
            save_png(grid(tiles, columns=1 + len(self.abnormal)), folder / f"{step:08d}.png")

    def score(self) -> float:
        """Return the kernel distance between held-out cells as the student and as the teacher edit them.

        Each becomes its own category, a normal one any; the teacher takes 25 steps of DDIM, once a run.
        """
        weights = Path(self.recipe.validate_weights) if self.recipe.validate_weights else None
        extractor = features.load(self.recipe.validate_with, weights, str(self.text.device))
        kept = self.run / "cache" / f"teacher-{extractor.digest}.safetensors"
        if not kept.exists():
            asked = EditSettings(guidance_scale=self.recipe.guidance_scale, fall=0.0)
            with self.student.teacher():
                atomic.write_bytes(kept, save({"features": self._seen(extractor, asked, "the teacher's edits")}))
        reference = load_file(kept)["features"]
        with self.student.shipped():
            ours = self._seen(extractor, self._few(), "edits for a score")
        return distance.kid(ours, reference, subsets=1, subset_size=len(reference)).mean

    def _seen(self, extractor: Extractor, settings: EditSettings, title: str) -> Features:
        """Return the features of the scored cells, each edited into its category; a normal one into one in turn."""
        edits = []
        for number, crop in enumerate(self.scored):
            other = self.abnormal[number % len(self.abnormal)]
            edits.append(PlannedEdit(crop.box, other if crop.category == NILM else crop.category, seed=number))
        found = []
        with meter(title, len(edits)) as bar:
            for start in range(0, len(edits), BATCH):
                chosen = edits[start : start + BATCH]
                painted = self._edited(self.scored[start : start + BATCH], chosen, settings)
                found.append(extractor([_about(pixels, edit) for pixels, edit in zip(painted, chosen, strict=True)]))
                bar.advance(amount=len(chosen))
        return np.concatenate(found)

    def _few(self) -> EditSettings:
        return EditSettings(sampler=self.card.sampler, steps=self.recipe.steps, guidance_scale=1.0, fall=0.0)

    def _edited(self, crops: Sequence[Crop], edits: Sequence[PlannedEdit], settings: EditSettings) -> list[Pixels]:
        windows = np.stack([crop.pixels for crop in crops])
        return list(self.editor.patch(windows, edits, settings, zooms=[crop.zoom for crop in crops]))

    def export(self, folder: Path) -> None:
        """Write the LoRA as a U-Net's `load_lora_adapter` reads it, half precision, and its card."""
        export.write(self.student, self.card, self.recipe, folder)


def _about(pixels: Pixels, edit: PlannedEdit) -> Pixels:
    """Return the part of a decoded patch about the cell of `edit`."""
    side = min(ABOUT, len(pixels))
    x, y = patch.corner(edit.box, pixels.shape[1], pixels.shape[0], side)
    return np.ascontiguousarray(pixels[y : y + side, x : x + side])


def distill_cell(recipe: CellDistillRecipe, run: Path, data_root: Path, max_minutes: float | None = None) -> Outcome:
    """Distil the synthesizer of `recipe` in the run folder `run`, or continue it."""

    def make() -> CellDistillTask:
        teacher = CellEditor.load(recipe.foundation, recipe.cell, prediction_type=recipe.prediction_type)
        _, crops, unseen = read(recipe, data_root, teacher.trained.zoom, run)
        return CellDistillTask(recipe, teacher, crops, unseen, run)

    return train(make, recipe, run, title="cell synthesizer, distilled", max_minutes=max_minutes)
