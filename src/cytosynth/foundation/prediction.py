"""What the denoiser of a single file predicts: the noise, or the velocity (Salimans and Ho, arXiv 2202.00512).

A checkpoint in one file has no scheduler's configuration. What it predicts may be stated by

- a key `v_pred` among its weights (and `ztsnr`: a schedule whose last step has no signal, arXiv 2305.08891);
- `modelspec.prediction_type` in its header (the Stability model metadata standard);
- `parameterization` in a YAML file of the same name next to it (the original repository's configuration).

Else it is the noise, as in Stable Diffusion 1.x.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..errors import UserError
from ..io import plain
from .names import PredictionType

EPSILON: PredictionType = "epsilon"
VELOCITY: PredictionType = "v_prediction"
KEY, ZERO_SNR = "v_pred", "ztsnr"
HEADER = "modelspec.prediction_type"
SPELLED: dict[str, PredictionType] = {
    "epsilon": EPSILON, "eps": EPSILON, "v": VELOCITY, "v_prediction": VELOCITY, "v-prediction": VELOCITY,
    "v_pred": VELOCITY,
}  # fmt: skip


def schedule(path: Path, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the single file at `path` with these `weights` states about its noise schedule.

    Raises UserError for an unknown prediction type.
    """
    said: dict[str, Any] = {"prediction_type": _named(path, weights)}
    if ZERO_SNR in weights:
        said["rescale_betas_zero_snr"] = True
    return said


def _named(path: Path, weights: Mapping[str, Any]) -> PredictionType:
    if KEY in weights:
        return VELOCITY
    with safe_open(path, "pt") as opened:
        header = opened.metadata() or {}
    if HEADER in header:
        return _known(f"{path}: {HEADER}", header[HEADER])
    for suffix in (".yaml", ".yml"):
        beside = path.with_suffix(suffix)
        if beside.is_file():
            found = _parameterization(beside)
            return EPSILON if found is None else _known(f"{beside}: parameterization", found)
    return EPSILON


def _known(where: str, value: object) -> PredictionType:
    spelled = SPELLED.get(str(value).lower())
    if spelled is None:
        raise UserError(f"{where} {str(value)[:40]!r} is unknown; expected epsilon or v")
    return spelled


def _parameterization(path: Path) -> object:
    """Return `model.params.parameterization` of the YAML file `path`, None if it says nothing."""
    try:
        found = plain.from_yaml(plain.text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable YAML ({' '.join(str(error).split())[:120]})") from None
    for key in ("model", "params", "parameterization"):
        found = found.get(key) if isinstance(found, dict) else None
    return found
