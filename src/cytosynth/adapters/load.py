"""Creating an adapter by name, and reading one of any kind."""

from pathlib import Path

from ..bethesda import NORMAL_PROMPT
from ..errors import UserError
from ..foundation.model import Foundation
from ..io import atomic
from ..io.progress import console
from ..io.tensors import refuse_pickles
from ..registry import ADAPTERS
from . import adapter, distilled, lora, tokens
from .adapter import Adapter, Tuning
from .lora import Lora
from .lora_file import PEFT_WEIGHTS


def attach(model: Foundation, recipe: Tuning) -> tuple[Adapter, str]:
    """Attach the adapter of `recipe` to `model`; return it, and the prompt as its tokenizer spells it.

    Raises UsageError when the prompt does not hold the word that is learnt.
    """
    made: Adapter = ADAPTERS.load(recipe.adapter).attach(model, recipe)
    return made, recipe.prompt.replace(recipe.token, tokens.spelled(recipe.token, recipe.vectors))


def merge(model: Foundation, path: Path) -> str:
    """Put the adapter at `path`, our folder or a public file, into the weights of `model`; return its prompt.

    The kind of a folder is in `adapter.json`, or follows from the name of its file; that of a single file from its
    keys. Raises UserError if the kind is unknown, or the weights do not fit.
    """
    kind, file = identified(path)
    card = adapter.read_card(path) if path.is_dir() else None
    if card and card.digest and model.digest and card.digest != model.digest:
        console.print(
            f"{path}: trained on foundation {card.foundation} {card.digest}, loaded into {model.name} {model.digest}",
            soft_wrap=True,
        )
    known = set(model.tokenizer.get_vocab())
    kind.merge(model, file)
    if card:
        return card.prompt
    words = [word for word in model.tokenizer.get_added_vocab() if word not in known]
    return " ".join([NORMAL_PROMPT, *words])


def merge_distilled(model: Foundation, name: str, stage: distilled.Stage, digest: str) -> str:
    """Put the few-step weights `name` of `stage` into the U-Net of `model`, whose weights' hash is `digest`.

    Returns 16 hexadecimal digits of their file's hash. Raises UserError if they do not fit; prints a line if they were
    distilled from other weights.
    """
    file, card = distilled.place(name, stage)
    lora.load(model, file)
    if card.teacher and card.teacher != digest:
        console.print(
            f"{name}: distilled from {card.teacher}, loaded into {digest}: images may be worse; distil again",
            soft_wrap=True,
        )
    return atomic.sha256(file)[:16]


def identified(path: Path) -> tuple[type[Adapter], Path]:
    """Return which adapter is at `path`, and the file of its weights."""
    if path.is_dir():
        card = adapter.read_card(path)
        if card and card.adapter not in ADAPTERS:
            raise UserError(
                f"{path / adapter.CARD}: unknown adapter {card.adapter!r}; expected one of {', '.join(ADAPTERS)}"
            )
        for name in ADAPTERS:
            kind: type[Adapter] = ADAPTERS.load(name)
            if card.adapter == name if card else (path / kind.file).is_file():
                return kind, path / kind.file
        if (path / PEFT_WEIGHTS).is_file():
            return Lora, path / PEFT_WEIGHTS
        refuse_pickles(path)
        names = ", ".join(ADAPTERS.load(name).file for name in ADAPTERS)
        raise UserError(f"{path}: no adapter found; expected {adapter.CARD} or one of {names}")
    keys = list(adapter.tensors(path))
    # The last registered is asked first: it knows its own file best.
    found = [kind for kind in map(ADAPTERS.load, reversed(list(ADAPTERS))) if kind.recognises(keys)]
    if found:
        return found[0], path
    if "clip_g" in keys:
        raise UserError(f"{path}: an embedding of Stable Diffusion XL (clip_g); give one of Stable Diffusion 1.x")
    raise UserError(f"{path}: not the weights of a known adapter ({', '.join(ADAPTERS)})")
