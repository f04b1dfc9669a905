"""Writing one network of a foundation."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from transformers.utils.logging import disable_progress_bar

from ..io import atomic


def save_part(part: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write one network of diffusers or transformers to `folder`: its configuration, its weights as `dtype`."""
    state = {
        key: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for key, value in part.state_dict().items()
    }
    disable_progress_bar()
    if isinstance(part, ConfigMixin):
        part.save_config(folder)
        save_file(state, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config.pop("_name_or_path", None)  # where it was loaded from is a path of this machine
        atomic.write_json(folder / "config.json", config)
    else:
        part.save_pretrained(folder, state_dict=state)
