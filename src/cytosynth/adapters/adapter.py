"""What all tuning methods have in common: attach, train, save, load."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..bethesda import NORMAL_PROMPT
from ..config import validated
from ..errors import UserError
from ..foundation.model import Foundation
from ..foundation.names import MOST_GUIDANCE, PAPER_GUIDANCE
from ..io import atomic, plain
from ..io import tensors as weights

CARD = "adapter.json"
LOW_FREQUENCIES = "low_frequencies.safetensors"
"""Name of the file, next to an adapter's weights, with the low frequencies of its training images."""


class AdapterCard(BaseModel):
    """`adapter.json`: what the weights next to it are, and the prompt for generating with them.

    Attributes:
        adapter: its kind.
        prompt: what it was trained on, with the words it learnt.
        foundation: name of the foundation it was trained on.
        digest: hash of that foundation's weights.
        guidance_scale: at which to generate with it, unless the settings say.
        training: how it was trained.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)
    adapter: str
    prompt: str = NORMAL_PROMPT
    foundation: str = ""
    digest: str = ""
    guidance_scale: float = Field(default=PAPER_GUIDANCE, ge=1, le=MOST_GUIDANCE)
    training: dict[str, Any] = {}


class Tuning(Protocol):
    """Settings of the adapter in a training recipe.

    Attributes:
        adapter: its kind.
        prompt: what it is trained on.
        rank: of a LoRA's matrices.
        token: the word that is learnt.
        initializer: the word whose embedding it begins with.
        vectors: how many embeddings the word has.
    """

    @property
    def adapter(self) -> str: ...  # noqa: D102
    @property
    def prompt(self) -> str: ...  # noqa: D102
    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def token(self) -> str: ...  # noqa: D102
    @property
    def initializer(self) -> str: ...  # noqa: D102
    @property
    def vectors(self) -> int: ...  # noqa: D102


class Adapter(ABC):
    """A method of tuning a Foundation.

    Attributes:
        name: what it is chosen by.
        file: name of its weight file, as its ecosystem expects it.
        encodes: whether it changes the text embeddings, which are then computed at every step.
        settings: of its recipe, those that `adapter.json` repeats.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    encodes: ClassVar[bool] = False
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Foundation) -> None:
        """Attach it to `model`, whose own weights stay frozen; its output does not change yet."""
        self.model = model.freeze()

    @classmethod
    def attach(cls, model: Foundation, recipe: Tuning) -> "Adapter":
        """Return it, attached to `model` as `recipe` says; raise UsageError for a recipe that does not fit."""
        return cls(model)

    @classmethod
    def recognises(cls, keys: Sequence[str]) -> bool:
        """Return whether a file of tensors with these `keys` is one of its kind."""
        return False

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights into `folder` as their ecosystem loads them."""

    @classmethod
    @abstractmethod
    def merge(cls, model: Foundation, file: Path) -> None:
        """Merge the weights in `file` into those of `model`; raise UserError if they do not fit."""


def save(
    adapter: Adapter, prompt: str, folder: Path, training: Mapping[str, Any] | None = None,
    guidance_scale: float = PAPER_GUIDANCE,
) -> None:  # fmt: skip
    """Write the weights of `adapter` and its card, which states its `training` and `guidance_scale`, into `folder`."""
    adapter.save(folder)
    model = adapter.model
    card = AdapterCard(
        adapter=adapter.name, prompt=prompt, foundation=Path(model.name).name, digest=model.digest,
        guidance_scale=guidance_scale, training=dict(training or {}),
    )  # fmt: skip
    atomic.write_json(folder / CARD, card.model_dump())


def read_card(folder: Path) -> AdapterCard | None:
    """Return the card in `folder`, None if there is none."""
    path = folder / CARD
    return validated(AdapterCard, plain.load(path), str(path)) if path.is_file() else None


def tensors(file: Path) -> dict[str, Tensor]:
    """Return what is in the safetensors `file`; raise UserError for anything else, pickles with the reason."""
    weights.refuse_pickle(file)
    if not file.is_file() or file.suffix != weights.SUFFIX:
        raise UserError(f"{file}: no adapter weights found; expected a .safetensors file")
    return weights.read(file)


def fits(file: Path, key: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    """Raise UserError when the shape `found` under `key` in `file` is not the one `wanted` by the foundation."""
    if tuple(found) != tuple(wanted):
        raise UserError(f"{file}: {key} is {tuple(found)}, the foundation needs {tuple(wanted)}")
