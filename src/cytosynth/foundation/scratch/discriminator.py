"""A discriminator of patches and its losses: hinge (Lim and Ye 2017) with R1 (Mescheder et al. 2018)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Discriminator(nn.Module):
    """Classifies each patch, of 22 pixels after two halvings and of 46 after three: above 0 real, below 0 decoded."""

    def __init__(self, channels: int, halvings: int = 2) -> None:
        """Build a convolution for each of the `halvings`, the first with `channels`, and one that scores."""
        super().__init__()
        widths = [3, *(channels * 2**level for level in range(halvings))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 1, h, w) scores of (n, 3, height, width) images, in float32: h is height / 2^halvings - 1."""
        with torch.autocast(images.device.type, enabled=False):
            scores: Tensor = self.layers(images.float())
        return scores

    def fixed(self, images: Tensor) -> Tensor:
        """Return the scores of `images`, through which gradients reach them but not this network."""
        weights = {name: value.detach() for name, value in self.named_parameters()}
        scores: Tensor = functional_call(self, weights, images)
        return scores


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Return the discriminator's loss of its scores of real and of decoded images."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def r1(discriminator: Discriminator, real: Tensor) -> Tensor:
    """Return the mean squared length of the gradient of the scores by the pixels of `real` images."""
    real = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(real).mean((1, 2, 3)).sum(), real, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: nn.Parameter, most: float) -> Tensor:
    """Return the weight, at most `most`, with which both losses move the `last` layer alike (Esser et al. 2021)."""
    (wanted,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (found,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    weight: Tensor = wanted.norm() / (found.norm() + 1e-4)
    return weight.clamp(max=most).detach()
