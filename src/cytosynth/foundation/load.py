"""One loader for any Stable Diffusion 1.x: hub id, diffusers folder, single safetensors file, `bundled`."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging
from transformers.utils.logging import disable_progress_bar

from ..errors import EnvironmentProblem, UserError, of_the_machine
from ..io import atomic
from ..io.bundled import model_folder
from ..io.plain import last
from ..io.tensors import refuse_pickle, refuse_pickles, weights_digest
from . import hub, tokens, trial
from .model import Foundation
from .names import BUNDLED, PredictionType
from .save import save_part
from .single_file import read_single_file

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
PROBLEMS = ("missing", "unexpected", "mismatched")
"""Of weights and a configuration, as the libraries call them."""
Denoiser = Literal["any", "plain", "unused"]
PREDICTIONS = get_args(PredictionType)
LONGEST = 10_000
"""Tokens of a prompt."""


def load(
    source: str,
    dtype: torch.dtype = torch.float32,
    denoiser: Denoiser = "any",
    prediction_type: PredictionType | None = None,
) -> Foundation:
    """Load a Stable Diffusion 1.x, and test it on a very small image.

    Args:
        source: `bundled`, a folder in diffusers' layout, a `.safetensors` file in the original layout, or
            the id of a model hub's repository.
        dtype: of all weights.
        denoiser: the required U-Net: `plain` has C input channels (4 in Stable Diffusion), `any` may also be an
            inpainting one (2C + 1); with `unused` it is not tested. prediction_type: what its U-Net predicts; None: as
            its files state.

    Raises UserError for a folder or file that is not a Stable Diffusion or holds pickled weights,
    EnvironmentProblem where a hub cannot be reached.
    """
    _quiet()
    path = model_folder(source, "foundation")
    refuse_pickle(path)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise UserError(f"{path}: expected a .safetensors file or a folder in diffusers' layout")
        model = read_single_file(path, dtype)
    elif path.is_dir() or source.count("/") == 1:
        model = _from_layout(str(path) if path.is_dir() else source, dtype, path.is_dir())
    else:
        raise UserError(f"{source}: no such folder or file, and not a hub id (owner/name)")
    if prediction_type:
        model.scheduler = DDPMScheduler.from_config(model.scheduler.config, prediction_type=prediction_type)
    _check(model, source, denoiser)
    model.name = source if source == BUNDLED or not path.exists() else last(path)
    model.digest = weights_digest(*model.parts.values())
    return model


def part(kind: Any, folder: Path, headless: bool = False) -> Any:
    """Return the network of diffusers or transformers of class `kind` in `folder`, float32.

    Raises UserError if it is pickled, damaged, or not of that class; weights of more than that class are refused too
    unless it is `headless`, the body of a network whose head may be there.
    """
    refuse_pickles(folder)
    _quiet()
    try:
        trial.bounded(_config(kind, str(folder), local_files_only=True), str(folder))
        found = kind.from_pretrained(
            folder, use_safetensors=True, torch_dtype=torch.float32, local_files_only=True, output_loading_info=True,
            variant=_variant(folder),
        )  # fmt: skip
    except UserError:
        raise
    except Exception as error:
        if of_the_machine(error):
            raise
        raise UserError(f"{folder}: not a readable {kind.__name__} ({' '.join(str(error).split())[:200]})") from None
    return _fitting(found, str(folder), ("missing", "mismatched") if headless else PROBLEMS)


def _config(kind: Any, source: str, **options: Any) -> dict[str, Any]:
    """Return the configuration of the network of class `kind` in `source`, before it is built."""
    if issubclass(kind, PreTrainedModel):
        return dict(kind.config_class.get_config_dict(source, **options)[0])
    return dict(kind.load_config(source, **options))


def _fitting(found: tuple[Any, Mapping[str, Any]], where: str, problems: Sequence[str] = PROBLEMS) -> Any:
    """Return the network that a library `found`; raise UserError if weights are missing, too many or misshapen."""
    network, said = found
    for problem in problems:
        keys = sorted(str(key) for key in said[f"{problem}_keys"] if not str(key).endswith("position_ids"))
        if keys:
            raise UserError(f"{where}: {keys[0]} is {problem}: the weights do not fit the configuration")
    return network


def _quiet() -> None:
    """Suppress the libraries' long messages while loading; our own lines state the problem."""
    disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    transformers_logging.set_verbosity_error()


def _check(model: Foundation, where: str, denoiser: Denoiser) -> None:
    """Raise UserError if `model` is unusable for generation."""
    scale, kind = model.vae.config.scaling_factor, model.scheduler.config.prediction_type
    length = model.tokenizer.model_max_length
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < abs(scale) < math.inf:
        raise UserError(f"{where}: vae: scaling_factor {scale!r}; expected a number other than 0")
    if kind not in PREDICTIONS:
        raise UserError(
            f"{where}: scheduler: prediction_type {str(kind)[:40]!r}; expected one of {', '.join(PREDICTIONS)}"
        )
    if not isinstance(length, int) or not 2 <= length <= LONGEST:
        raise UserError(f"{where}: tokenizer: model_max_length {length}; expected 2 to {LONGEST}")
    trial.autoencode(model, where)
    if denoiser == "unused":
        return
    channels = [model.channels] + [2 * model.channels + 1] * (denoiser == "any")
    if model.unet.config.in_channels not in channels:
        raise UserError(
            f"{where}: its U-Net has {model.unet.config.in_channels} input channels; one with "
            f"{' or '.join(map(str, channels))} is expected"
        )
    trial.denoise(model, where)


def _from_layout(source: str, dtype: torch.dtype, local: bool) -> Foundation:
    if local:
        for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
            if not (Path(source) / part).is_dir():
                raise UserError(
                    f"{source}: the folder '{part}' is missing; a Stable Diffusion in diffusers' layout has it"
                )
            refuse_pickles(Path(source) / part)
    parts = ("unet", "vae", "text_encoder")
    variants = {name: _variant(Path(source) / name) if local else None for name in parts}
    cached = local or not hub.reachable()
    common: dict[str, Any] = {"local_files_only": cached}
    weights = common | {"torch_dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    try:
        warnings.filterwarnings("ignore", module="huggingface_hub")  # of its own, about how diffusers calls it
        for name, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL), ("text_encoder", CLIPTextModel)):
            trial.bounded(_config(kind, source, subfolder=name, **common), f"{source}/{name}")
        found = {
            "unet": UNet2DConditionModel.from_pretrained(source, subfolder="unet", variant=variants["unet"], **weights),
            "vae": AutoencoderKL.from_pretrained(source, subfolder="vae", variant=variants["vae"], **weights),
            "text_encoder": CLIPTextModel.from_pretrained(
                source,
                subfolder="text_encoder",
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                variant=variants["text_encoder"],
                **common,
            ),
        }
        schedule = DDPMScheduler.load_config(source, subfolder="scheduler", **common)
        trial.bounded(schedule, f"{source}/scheduler")
        return Foundation(
            **{name: _fitting(one, f"{source}/{name}") for name, one in found.items()},
            tokenizer=CLIPTokenizer.from_pretrained(source, subfolder="tokenizer", **common),
            scheduler=_schedule(schedule),
            name=source,
        )
    except UserError:
        raise
    except Exception as error:
        if of_the_machine(error):
            raise
        line = " ".join(str(error).split())[:200]
        if local or not isinstance(error, OSError | ValueError):
            raise UserError(f"{source}: {line}") from None
        if cached:
            reason = f"the hub cannot be reached (tried for {hub.PATIENCE:g} s), and it is not in the hub's cache"
            raise EnvironmentProblem(f"{source}: {reason}; give a folder or a .safetensors file") from None
        raise EnvironmentProblem(f"{source}: not on the hub, or not complete there ({line})") from None


VARIANT = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors")
"""File of a network's weights, or of a part of them; the group is the variant: `fp16`, none."""


def _variant(folder: Path) -> str | None:
    """Return the variant of the weights in `folder`: None if they have no variant, else the first by name.

    Half-precision copies are published as `diffusion_pytorch_model.fp16.safetensors`, often by themselves.
    """
    found = [match[1] for path in folder.iterdir() if (match := VARIANT.fullmatch(path.name))]
    return None if None in found else min(found, default=None)


def _schedule(config: dict[str, Any]) -> DDPMScheduler:
    """Return the noise schedule of `config`, whichever scheduler wrote it, with Stable Diffusion's conventions.

    Latents are never clipped, and the last step ends at alpha_0, as in diffusers' own pipeline.
    """
    given = {"set_alpha_to_one": False, "steps_offset": 1} | config
    return DDPMScheduler.from_config(given | {"clip_sample": False})


def save(model: Foundation, folder: Path, dtype: torch.dtype) -> None:
    """Write `model` to `folder` in diffusers' layout, weights as safetensors of `dtype`; `model` is unchanged."""
    for name, part in model.parts.items():
        save_part(part, folder / name, dtype)
    tokens.save(model.tokenizer, folder / "tokenizer")
    model.scheduler.save_pretrained(folder / "scheduler")
    atomic.write_json(folder / "model_index.json", INDEX)
