"""DINO whole: backbone, encoder, mixed query selection, denoising, decoder; losses while training, else cells."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrMultiscaleDeformableAttention

from .. import backbones
from ..architecture import Architecture
from ..backbones import resnet
from ..backbones.backbone import Backbone
from ..recipe import TORCHVISION
from . import boxes, denoising, keys, losses
from .decoder import Decoder
from .denoising import Truth
from .encoder import Encoder
from .queries import Selection
from .sizes import SIZES, Sizes

MOST: Final = 300
"""Detections of an image."""
LEAST: Final = 0.05
"""Score of a detection, as of the other detectors."""


def build(backbone: str, categories: int, pretrained: bool = False) -> "Dino":
    """Return an untrained DINO for `categories` kinds of cell.

    On `resnet50` it is the authors' R50 4-scale. Images are not resized.
    """
    return Dino(backbones.load(backbone), categories, pretrained)


class Dino(nn.Module):
    """DINO-DETR, called as torchvision's detectors are.

    Boxes are fractions of the image: use it on images of about the size it was trained on.
    """

    backbone_rate: Final = 0.1
    """Factor on the learning rate of a pretrained backbone, the authors'."""

    def __init__(self, base: Backbone, categories: int, pretrained: bool = False, sizes: Sizes | None = None) -> None:
        """Build on the stages of `base`; `sizes` are by default those that it asks for."""
        super().__init__()
        self.base, self.categories = base, categories
        self.sizes = sizes = sizes or SIZES[base.transformer]
        self.transform = base.normalise(pretrained)
        self.backbone = base.stages(pretrained)
        self.encoder = Encoder(sizes, self.backbone.channels)
        self.selection = Selection(sizes, categories)
        self.decoder = Decoder(sizes, categories)
        # One more than there are categories, as in the authors' checkpoints; the last is never used.
        self.label_embed = nn.Embedding(categories + 1, sizes.width)
        _initialise(self)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Return the losses of a training step, or what is found on each of `images` ((3, h, w) in 0..1)."""
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        tokens, grid = self.encoder(self.feature_maps(images, sizes), sizes)
        queries = self.selection(tokens, grid)
        if not self.training:
            seen = denoising.seen(None, queries.real)
            classes, found = self.decoder(queries.content, queries.references, seen, tokens, grid)
            return _results(classes[-1].masked_fill(~queries.real[..., None], -math.inf), found[-1], sizes)
        assert targets is not None
        truth = [
            Truth(target["labels"] - 1, boxes.fractions(target["boxes"], size))
            for target, size in zip(targets, sizes, strict=True)
        ]
        noise = denoising.noised(truth, self.categories, self.sizes.denoising)
        content, references = queries.content, queries.references
        if noise is not None:
            content = torch.cat([self.label_embed(noise.labels), content], dim=1)
            references = torch.cat([boxes.logits(noise.boxes).sigmoid(), references], dim=1)
        seen = denoising.seen(noise, queries.real)
        classes, found = self.decoder(content, references, seen, tokens, grid)
        # Without objects nothing else would use the embedding, and several processes need all gradients.
        classes = classes + 0.0 * self.label_embed.weight.sum()
        said = losses.summed("encoder", [losses.matched(queries.logits, queries.boxes, queries.real, truth)])
        first = classes.shape[2] - queries.real.shape[1]
        layers = list(zip(classes, found, strict=True))
        said |= losses.summed("decoder", [losses.matched(c[:, first:], b[:, first:], queries.real, truth)
                                          for c, b in layers])  # fmt: skip
        if noise is not None:
            said |= losses.summed("denoising", [losses.denoised(c[:, :first], b[:, :first], noise, truth)
                                                for c, b in layers])  # fmt: skip
        return said

    def start(self, weights: str) -> str:
        """Begin from `weights`, as `backbone.start` does, or from a safetensors file of the authors' whole network.

        Returns a line that says which. Raises UserError for a file that is neither.
        """
        own = self.base.imagenet != TORCHVISION  # the authors' whole network is on ResNet-50
        state = {} if own or weights == TORCHVISION else resnet.read(Path(weights))
        if not any(key.endswith(keys.MARK) for key in state):
            self.base.start(self.get_submodule("backbone.body"), weights)
            return "the backbone is initialised from ImageNet weights, the rest at random"
        fresh = keys.start(self, state, weights)
        return f"all layers are initialised from DINO's weights except: {', '.join(fresh) or 'none'}" + (
            f"; these depend on the number of categories ({self.categories}) and are initialised at random"
            if fresh
            else ""
        )

    def feature_maps(self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[list[Tensor]]:
        """Return each image's feature maps, (width, h, w) by level.

        Images of one size go together and none is padded: padding would reach into the features by convolutions and by
        the statistics of group norm, so an image's features would depend on larger images in its batch.
        """
        maps: list[list[Tensor]] = [[] for _ in images]
        for size in dict.fromkeys(sizes):
            members = [index for index, other in enumerate(sizes) if other == size]
            batch = torch.stack([self.transform.normalize(images[index]) for index in members])
            levels = self.encoder.project(self.backbone(batch))
            for row, index in enumerate(members):
                maps[index] = [level[row] for level in levels]
        return maps


def _results(logits: Tensor, found: Tensor, sizes: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
    """Return the best boxes (pixels), labels (from 1) and scores of each image; a box may have several labels."""
    results = []
    for scores, own, size in zip(logits.sigmoid(), found, sizes, strict=True):
        best = scores.flatten().topk(min(MOST, scores.numel()))
        kept = best.indices[best.values >= LEAST]
        query = kept.div(scores.shape[1], rounding_mode="floor")
        results.append({
            "boxes": boxes.pixels(own[query], size), "labels": kept % scores.shape[1] + 1,
            "scores": best.values[: len(kept)],
        })  # fmt: skip
    return results


@torch.no_grad()
def _initialise(network: Dino) -> None:
    """Initialise the transformer as the authors do: Xavier, and attention offsets in a ring."""
    drawn = (network.encoder.layers, network.decoder.layers, network.decoder.ref_point_head)
    for part in (*drawn, network.selection.enc_output, network.selection.content):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
    for module in network.modules():
        if isinstance(module, DeformableDetrMultiscaleDeformableAttention):
            _look_around(module)


def _look_around(attention: Any) -> None:
    """Give each head its own direction, with points one step apart and equal weights (Deformable DETR)."""
    heads, levels, points = attention.n_heads, attention.n_levels, attention.n_points
    angles = torch.arange(heads) * (2 * math.pi / heads)
    ring = torch.stack([angles.cos(), angles.sin()], dim=-1)
    ring = ring / ring.abs().amax(dim=-1, keepdim=True)
    steps = torch.arange(1, points + 1)[None, None, :, None]
    offsets = (ring[:, None, None] * steps).expand(heads, levels, points, 2)
    attention.sampling_offsets.bias.copy_(offsets.flatten())
    for parameter in (attention.sampling_offsets.weight, *attention.attention_weights.parameters()):
        nn.init.zeros_(parameter)
    for linear in (attention.value_proj, attention.output_proj):
        nn.init.zeros_(linear.bias)


ARCHITECTURE = Architecture(build, start=Dino.start, backbone="backbone.", rate=Dino.backbone_rate, fractions=True)
