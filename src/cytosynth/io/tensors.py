"""Reading weights: only safetensors. A pickle can run code when it is opened, so pickles are refused."""

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError

PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle"})
SUFFIX = ".safetensors"
CONVERT = (
    'convert it on an isolated machine: python -c "import torch, safetensors.torch as s; '
    "w = torch.load('IN', map_location='cpu', weights_only=True); w = w.get('state_dict', w); "
    "w = {'emb_params': w['string_to_param']['*']} if 'string_to_param' in w else w; "
    "w = {k: v.detach().contiguous() for k, v in w.items() if hasattr(v, 'shape')}; "
    "s.save_file(w, 'OUT.safetensors') if w else exit('no weights found in it')\""
)


def refuse_pickle(path: Path) -> None:
    """Raise UserError, with the reason and how to convert it, when `path` is named as pickled weights are."""
    if path.suffix.lower() in PICKLES:
        raise UserError(f"{path}: pickled weights can run code when they are opened and are refused; {CONVERT}")


def refuse_pickles(folder: Path) -> None:
    """Raise UserError when the weights in `folder` are pickled: some are there, and no safetensors."""
    found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not any(path.suffix == SUFFIX for path in found):
        for path in found:
            refuse_pickle(path)


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors in the safetensors file at `path`; raise UserError for anything else, pickles with the reason.

    Where there is no file, a pickle next to it is what the user meant.
    """
    refuse_pickle(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: not a regular file")
        return dict(load_file(path))
    except FileNotFoundError:
        refuse_pickles(path.parent)
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SafetensorError, RuntimeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not a safetensors file ({' '.join(str(error).split())[:120]})") from None


def equal_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Return whether two modules have weights of the same names and values; it takes a tenth of hashing them."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def weights_digest(*modules: torch.nn.Module, beside: object = None) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over names and values of the weights of `modules`.

    Also over the plain values `beside` them, which determine their output too.
    """
    digest = hashlib.sha256(b"" if beside is None else json.dumps(beside, sort_keys=True, default=str).encode())
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]
