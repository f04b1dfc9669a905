"""From feature maps to tokens: all levels of all images in one sequence, through deformable self-attention."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.deformable_detr.modeling_deformable_detr import DeformableDetrEncoderLayer

from .boxes import sine
from .sizes import FIRST_STRIDE, Sizes

TEMPERATURE = 20.0
"""Of the position embedding of tokens, in the authors' configuration."""


@dataclass(frozen=True)
class Grid:
    """Where the tokens of a batch lie.

    Images of different sizes share the maps of the largest; what is beyond an image's own edge is padding. No result
    for an image depends on another's size: all is measured in fractions of the image itself.

    Attributes:
        shapes: (height, width) of each level's map.
        ratios: (images, levels, 2) shares of the maps' width and height that an image covers.
        centres: (images, tokens, 2) x and y of the tokens' centres, as fractions of their image.
        ends: (images, tokens, 2) the same of their far corners.
        real: (images, tokens) whether a token is of its image at all.
    """

    shapes: list[tuple[int, int]]
    ratios: Tensor
    centres: Tensor
    ends: Tensor
    real: Tensor

    @property
    def attention(self) -> dict[str, object]:
        """What deformable attention needs to know of the maps."""
        shapes = torch.tensor(self.shapes, device=self.ratios.device)
        areas = shapes.prod(dim=1)
        return {"spatial_shapes": shapes, "spatial_shapes_list": self.shapes,
                "level_start_index": areas.cumsum(0) - areas}  # fmt: skip


def grid(sizes: Sequence[tuple[int, int]], shapes: list[tuple[int, int]], device: torch.device) -> Grid:
    """Return the grid of images of `sizes` (height, width in pixels) on maps of `shapes`, finest first."""
    extents = torch.tensor([(width, height) for height, width in sizes], device=device, dtype=torch.float32)
    ratios, centres, ends, real = [], [], [], []
    for level, (height, width) in enumerate(shapes):
        own = extents / (FIRST_STRIDE * 2**level)  # of each image, in tokens; the last may be cut
        ratios.append(own / own.new_tensor([width, height]))
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = torch.stack([x, y], dim=-1).reshape(1, -1, 2).to(own)
        centres.append((places + 0.5) / own[:, None])
        ends.append((places + 1) / own[:, None])
        real.append((places < own[:, None]).all(dim=-1))
    return Grid(shapes, torch.stack(ratios, dim=1), torch.cat(centres, 1), torch.cat(ends, 1), torch.cat(real, 1))


class Encoder(nn.Module):
    """Projects the backbone's maps to one width, adds coarser ones, and applies self-attention to all tokens."""

    def __init__(self, sizes: Sizes, channels: Sequence[int]) -> None:
        """Take the channels of the backbone's maps; further levels are 3x3 convolutions of the last."""
        super().__init__()
        self.sizes = sizes
        narrowed = [_projection(count, sizes.width, 1) for count in channels]
        coarser = [
            _projection(channels[-1] if index == 0 else sizes.width, sizes.width, 2)
            for index in range(sizes.levels - len(channels))
        ]
        self.input_proj = nn.ModuleList(narrowed + coarser)
        self.level_embed = nn.Parameter(torch.empty(sizes.levels, sizes.width))
        nn.init.normal_(self.level_embed)
        self.layers = nn.ModuleList(DeformableDetrEncoderLayer(sizes.layers) for _ in range(sizes.encoder_layers))

    def project(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps of all levels, (n, width, h, w) each, from the backbone's, of images of one size."""
        found = [projection(level) for projection, level in zip(self.input_proj, maps, strict=False)]
        last = maps[-1]
        for projection in self.input_proj[len(maps) :]:
            last = projection(last)
            found.append(last)
        return found

    def forward(self, maps: Sequence[Sequence[Tensor]], sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Grid]:
        """Return the tokens (images, tokens, width) of all levels and their grid.

        Args:
            maps: of each image, those of all levels, (width, h, w).
            sizes: of each image, height and width in pixels.
        """
        shapes = [
            (max(own.shape[1] for own in level), max(own.shape[2] for own in level))
            for level in zip(*maps, strict=True)
        ]
        tokens = torch.stack([
            torch.cat([_padded(level, shape).flatten(1).T for level, shape in zip(own, shapes, strict=True)])
            for own in maps
        ])  # fmt: skip
        places = grid(sizes, shapes, tokens.device)
        position = sine(places.ends.flip(-1), self.sizes.width // 2, TEMPERATURE)
        areas = torch.tensor([height * width for height, width in shapes], device=tokens.device)
        position = position + self.level_embed.repeat_interleave(areas, dim=0)
        reference = places.centres[:, :, None] * places.ratios[:, None]
        for layer in self.layers:
            tokens = layer(
                tokens, places.real, spatial_position_embeddings=position, reference_points=reference,
                **places.attention,
            )  # fmt: skip
        return tokens, places


def _projection(channels: int, width: int, stride: int) -> nn.Sequential:
    kernel = 1 if stride == 1 else 3
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
    nn.init.xavier_uniform_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(32, width))


def _padded(level: Tensor, shape: tuple[int, int]) -> Tensor:
    return functional.pad(level, (0, shape[1] - level.shape[-1], 0, shape[0] - level.shape[-2]))
