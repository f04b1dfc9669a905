"""Textual Inversion (Gal et al. 2022, arXiv 2208.01618): the embedding of a new word, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..errors import UserError
from ..foundation.model import Foundation
from . import tokens
from .adapter import Adapter, Tuning
from .adapter import tensors as read


class TextualInversion(Adapter):
    """A learnt word."""

    name = "textual-inversion"
    file = "learned_embeds.safetensors"
    encodes = True
    settings = ("token", "initializer", "vectors")

    def __init__(self, model: Foundation, word: str, initializer: str, vectors: int = 1) -> None:
        """Add a `word` to `model`, initialised from the word `initializer`."""
        super().__init__(model)
        self.word = word
        self.words = tokens.add(model, word, tokens.start(model, initializer, vectors))

    @classmethod
    def attach(cls, model: Foundation, recipe: Tuning) -> "TextualInversion":
        """Return a word of the recipe's vectors, added to `model`."""
        tokens.in_prompt(recipe)
        return cls(model, recipe.token, recipe.initializer, recipe.vectors)

    @classmethod
    def recognises(cls, keys: Sequence[str]) -> bool:
        """Return whether there is a single tensor: the word's."""
        return len(keys) == 1

    def save(self, folder: Path) -> None:
        """Write the word as diffusers' `load_textual_inversion` reads it."""
        tokens.save(self.words, self.word, folder / self.file)

    @classmethod
    def merge(cls, model: Foundation, file: Path) -> None:
        """Add the word in `file` to `model`: diffusers' layout, or AUTOMATIC1111's, whose word is the file's name."""
        word, vectors = word_in(file)
        tokens.merge(model, word, vectors)


def word_in(file: Path) -> tuple[str, Tensor]:
    """Return the word in `file` and its vectors (n, channels)."""
    found = read(file)
    if len(found) != 1 or next(iter(found.values())).ndim not in (1, 2) or not next(iter(found.values())).numel():
        raise UserError(f"{file}: no learnt word; expected one tensor of shape (vectors, channels)")
    word, vectors = next(iter(found.items()))
    return (file.stem if word == "emb_params" else word), vectors.reshape(-1, vectors.shape[-1])
