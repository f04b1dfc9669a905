"""Training the text encoder of the bundled foundation: CLIP's objective on annotated cells.

Stable Diffusion's text encoder comes from contrastive training against images (CLIP, arXiv 2103.00020) and is
frozen from then on. A small one that was trained together with the denoiser mapped the prompts of all categories to the
same embedding. Here it is trained against a small image network, which is then discarded, to match words with cells:
several texts are right for a cell, so the target is distributed evenly over them.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ...bethesda import ABNORMAL, NILM, NORMAL_PROMPT, abnormal_prompt
from ...data import augment, varied
from ...data.sources import Sample
from ...errors import UserError
from ...training.task import Batch, Losses, Task
from .. import tokens
from ..pixels import to_tensor
from ..save import save_part
from .recipe import TextRecipe

WORDS = (NILM, *ABNORMAL, "SCC")
"""The categories whose words the tokenizer holds whole."""
SHARED = 64
"""Channels of the space in which cells and texts are compared."""


def build(channels: int, layers: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Return a tokenizer of the prompts' words and an untrained CLIP text encoder for it."""
    tokenizer = tokens.build([NORMAL_PROMPT, *map(abnormal_prompt, WORDS)])
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=channels, intermediate_size=4 * channels, num_hidden_layers=layers,
        num_attention_heads=4, projection_dim=channels, max_position_embeddings=tokenizer.model_max_length,
        hidden_act="quick_gelu", bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return tokenizer, CLIPTextModel(config)


def texts_of(category: str) -> list[str]:
    """Return every text that is right for a cell of `category`: its prompt, its name, and the normal prompt."""
    return [abnormal_prompt(category), category, *([NORMAL_PROMPT] if category == NILM else [])]


class TextTask(Task):
    """Trains a CLIP text encoder to tell annotated cells apart by their category's texts."""

    owner: Tensor
    token_ids: Tensor

    def __init__(self, recipe: TextRecipe, samples: Sequence[Sample]) -> None:
        """Gather the cells of `samples`."""
        super().__init__()
        varied.keep_size(recipe.augment, "the text encoder")
        self.recipe, self.samples = recipe, samples
        self.tokenizer, self.text_encoder = build(recipe.text_channels, recipe.text_layers)
        self.cells = _by_category(samples, recipe.crop)
        if len(self.cells) < 2:
            raise UserError(
                f"the recipe's data have cells of {len(self.cells)} category; at least two categories are needed"
            )
        self.names = sorted(self.cells)
        self.texts = [text for name in self.names for text in texts_of(name)]
        owner = [index for index, name in enumerate(self.names) for _ in texts_of(name)]
        self.register_buffer("owner", torch.tensor(owner), persistent=False)
        ids = self.tokenizer(self.texts, padding="max_length", max_length=self.tokenizer.model_max_length)
        self.register_buffer("token_ids", torch.tensor(ids.input_ids), persistent=False)
        self.image_encoder = _image_encoder()
        self.text_projection = nn.Linear(recipe.text_channels, SHARED, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(10.0).log())

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        """Return crops (n, 3, side, side) in -1..1 of cells, categories as frequent as each other, and categories."""
        categories = rng.integers(len(self.names), size=size)
        crops = []
        for category in categories:
            places = self.cells[self.names[category]]
            index, number = places[int(rng.integers(len(places)))]
            crops.append(self._crop(self.samples[index], number, rng))
        return {"pixels": to_tensor(np.stack(crops)), "category": torch.as_tensor(categories)}

    def forward(self, batch: Batch) -> Losses:
        """Return the contrastive loss of cells against texts, both ways, and the share of cells put right."""
        logits = self.logits(batch["pixels"])
        correct = (self.owner[logits.argmax(1)] == batch["category"]).float().mean()
        return {"loss": contrastive(logits, self.owner, batch["category"]), "accuracy": correct}

    def logits(self, pixels: Tensor) -> Tensor:
        """Return (n, texts) scaled cosine similarities of crops (n, 3, side, side) and texts."""
        images = F.normalize(self.image_encoder(pixels), dim=1)
        pooled = self.text_encoder(self.token_ids).pooler_output
        texts = F.normalize(self.text_projection(pooled), dim=1)
        return torch.as_tensor(self.logit_scale.clamp(max=4.6).exp() * images @ texts.T)

    def export(self, folder: Path) -> None:
        """Write `text_encoder` and `tokenizer` as a Stable Diffusion folder holds them."""
        save_part(self.text_encoder, folder / "text_encoder", torch.float16)
        tokens.save(self.tokenizer, folder / "tokenizer")

    def _crop(self, sample: Sample, number: int, rng: np.random.Generator) -> np.ndarray:
        side, jitter = self.recipe.crop, self.recipe.crop // 12
        width, height = sample.size
        middle = (value + float(rng.integers(-jitter, jitter + 1)) for value in sample.cells[number].centre)
        x, y = (
            min(max(round(value - side / 2), 0), most - side)
            for value, most in zip(middle, (width, height), strict=True)
        )
        turned = augment.d4(augment.crop(sample.pixels, x, y, side), int(rng.integers(8)))
        shown, _ = varied.at_this_step(turned, (), self.recipe.augment, rng)
        return augment.restain(np.ascontiguousarray(shown), self.recipe.restain, rng)


def contrastive(logits: Tensor, owner: Tensor, category: Tensor) -> Tensor:
    """Return the mean of cross-entropies of (cells, texts) `logits` along texts and along cells.

    `owner` (texts,) and `category` (cells,) number categories; the target is even over all that agree. A text no
    cell of the batch belongs to counts only as a wrong answer. With one text to a cell it is CLIP's loss.
    """
    right = (category[:, None] == owner[None]).float()
    to_text = -(right / right.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    shown = right.sum(0) > 0
    to_image = -(right / right.sum(0).clamp(min=1) * logits.log_softmax(0)).sum(0)[shown].mean()
    return (to_text + to_image) / 2


def similarity(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Return (n, n) cosine similarities of the pooled embeddings of `texts`."""
    ids = tokenizer(list(texts), padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    with torch.no_grad():
        pooled = encoder(ids.input_ids).pooler_output
    return torch.as_tensor(F.cosine_similarity(pooled[:, None], pooled[None], dim=2))


def _by_category(samples: Sequence[Sample], side: int) -> dict[str, list[tuple[int, int]]]:
    cells: dict[str, list[tuple[int, int]]] = {}
    for index, sample in enumerate(samples):
        if min(sample.size) >= side:
            for number, cell in enumerate(sample.cells):
                if cell.category in WORDS:
                    cells.setdefault(cell.category, []).append((index, number))
    return cells


def _image_encoder() -> nn.Module:
    widths = (3, 24, 48, 96, 128)
    blocks: list[nn.Module] = []
    for before, after in pairwise(widths):
        blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], SHARED))
