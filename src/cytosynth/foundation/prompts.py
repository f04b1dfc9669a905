"""Text embeddings, each computed once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .model import Foundation


class Prompts:
    """The text embeddings of a foundation whose weights no longer change.

    Each text is encoded separately, repeated to the size of the requested batch: so its embedding is, to the bit, the
    same as in that batch.
    """

    def __init__(self, model: Foundation) -> None:
        """Cache the embeddings of `model`."""
        self.model = model
        self.known: dict[tuple[str, str, int, torch.dtype], Tensor] = {}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Return (n, max_length, channels) embeddings of `texts`; as `Foundation.encode_text`."""
        return torch.cat([self._of("encode", text, len(texts)) for text in texts])

    def pool(self, texts: Sequence[str]) -> Tensor:
        """Return (n, channels) pooled embeddings of `texts`; as `Foundation.pool_text`."""
        return torch.cat([self._of("pool", text, len(texts)) for text in texts])

    def _of(self, kind: str, text: str, batch: int) -> Tensor:
        key = (kind, text, batch, self.model.text_encoder.dtype)
        if key not in self.known:
            embed = self.model.encode_text if kind == "encode" else self.model.pool_text
            self.known[key] = embed([text] * batch)[:1]
        return self.known[key]
