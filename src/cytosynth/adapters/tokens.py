"""New words for a text encoder: only their embeddings are trained; the table of the existing ones is unchanged."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import UsageError, UserError
from ..foundation.model import Foundation
from .adapter import Tuning


class NewWords(nn.Module):
    """An embedding table with trainable rows after its own frozen ones."""

    def __init__(self, table: nn.Embedding, first: int, rows: Tensor) -> None:
        """Hold `table`, and `rows` (n, channels) for the token ids from `first` on."""
        super().__init__()
        self.table, self.first = table, first
        self.rows = nn.Parameter(rows.detach().float().clone())

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return (..., channels) embeddings of `token_ids`."""
        new = token_ids >= self.first
        old = self.table(token_ids.masked_fill(new, 0))
        rows = self.rows.to(old.dtype)[(token_ids - self.first).clamp(min=0)]
        return torch.where(new[..., None], rows, old)


def add(model: Foundation, word: str, vectors: Tensor) -> NewWords:
    """Add the `word`, whose embedding is `vectors` (n, channels), to `model`; return the table that holds it.

    Several vectors become the words `word`, `word_1`, ... as in diffusers. Raises UserError when a word is known
    already, or the vectors are of another width.
    """
    width = model.text_encoder.config.hidden_size
    if vectors.ndim != 2 or vectors.shape[1] != width:
        raise UserError(f"{word}: an embedding of {vectors.shape[-1]} channels; the text encoder has {width}")
    known = model.tokenizer.get_vocab()
    names = spelled(word, len(vectors)).split(" ")
    for name in names:
        if name in known:
            raise UserError(f"token {name!r}: already in the vocabulary of {model.name}; choose another")
    first = len(model.tokenizer)
    model.tokenizer.add_tokens(names)
    table = model.text_encoder.get_input_embeddings()
    if isinstance(table, NewWords):
        raise UserError(f"token {word!r} was already added")
    words = NewWords(table, first, vectors)
    model.text_encoder.set_input_embeddings(words)
    return words


def start(model: Foundation, initializer: str, vectors: int) -> Tensor:
    """Return (vectors, channels) copies of the embedding of the word `initializer`.

    Raises UserError when it is not one token.
    """
    ids = model.tokenizer(initializer, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise UserError(
            f"initializer {initializer!r}: is {len(ids)} tokens of {model.name}; give a word that is one token"
        )
    row: Tensor = model.text_encoder.get_input_embeddings().weight[ids[0]].detach()
    return row.repeat(vectors, 1)


def spelled(word: str, vectors: int) -> str:
    """Return `word` as the tokenizer has it: one word a vector."""
    return " ".join([word, *(f"{word}_{number}" for number in range(1, vectors))])


def save(words: NewWords, word: str, file: Path) -> None:
    """Write the vectors of `word` as diffusers' `load_textual_inversion` reads them."""
    save_file({word: words.rows.detach().cpu().contiguous()}, file, metadata={"format": "pt"})


def merge(model: Foundation, word: str, vectors: Tensor) -> None:
    """Add the `word` to `model` permanently: its rows become part of the embedding table."""
    words = add(model, word, vectors.reshape(-1, vectors.shape[-1]).float())
    table: nn.Embedding = words.table
    rows = words.rows.detach().to(table.weight)
    whole = nn.Embedding(words.first + len(rows), table.embedding_dim).to(table.weight)
    with torch.no_grad():
        whole.weight[: words.first] = table.weight[: words.first]
        whole.weight[words.first :] = rows
    model.text_encoder.set_input_embeddings(whole.requires_grad_(False))


def in_prompt(recipe: Tuning) -> None:
    """Raise UsageError when the prompt of `recipe` does not hold the word that is learnt."""
    if recipe.token not in recipe.prompt.split():
        raise UsageError(f"prompt {recipe.prompt!r}: must contain the learnt word {recipe.token!r} (token)")
