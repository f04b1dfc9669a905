"""Inception-v3 as FID was defined on it: torch-fidelity's port of the TensorFlow network of 2015, 2048 features."""

import io
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from ...errors import EnvironmentProblem
from ...imagenet import weights
from . import resize
from .network import Network

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299


def load(path: Path | None) -> Network:
    """Return the network with the weights at `path`; where None, those of torch-fidelity's release.

    The release is looked for where torch-fidelity keeps it and fetched where it is not. Raises EnvironmentProblem
    when that fails, UserError for a file that does not fit.
    """
    path = path or _release()
    return Network(
        title="ID",
        dimension=2048,
        module=build(weights.read(path, SHA256), path),
        prepare=lambda pixels: (resize.clean(pixels, SIDE) - 128) / 128,
        preprocessing="clean-fid 299, (x - 128) / 128",
    )


def build(state: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """Return torch-fidelity's network with `state`, from prepared images to (n, 2048)."""
    buffer = io.BytesIO()  # its class opens weights as a pickle that may hold code: give it one written here
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception-v3", ["2048"], feature_extractor_weights_path=buffer)
    except RuntimeError as error:
        raise weights.misfit(error, path) from None
    # Its children are in the order in which `forward` calls them. `forward` itself takes bytes alone, and
    # clean-fid's images are not rounded.
    layers = [module for name, module in network.named_children() if name != "fc"]
    return nn.Sequential(*layers, nn.Flatten(1))


def _release() -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(URL_INCEPTION_V3).name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), hash_prefix=SHA256)
    except (URLError, OSError, RuntimeError):
        raise EnvironmentProblem(
            f"inception-v3: its weights cannot be downloaded; give {path.name} of torch-fidelity's release v0.2.0, "
            "or the same as .safetensors, with --weights"
        ) from None
    return path
