"""What every discriminator gives, and the parts that several share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from runtime.errors import InvalidInput

NORMS = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "spectral": nn.Identity,  # of the weights, not of the maps: see `finish`
    "none": nn.Identity,
}


class Judged(NamedTuple):
    """A discriminator's opinion of N pictures.

    logits: [N], positive where it believes the picture. features: [N, F], what its last layer saw.
    classes: [N, K] logits of the classes; empty where it does not tell them apart.
    """

    logits: Tensor
    features: Tensor
    classes: Tensor = torch.empty(0)


class MinibatchDiscrimination(nn.Module):
    """Tells each picture how close the others of its batch are, so that a collapsed generator is found out.

    [N, F] → [N, F + kernels]: Salimans et al. 2016 (arXiv 1606.03498), section 3.2. Each feature vector becomes
    `kernels` rows of `dims` values; a row's closeness to another picture's is exp(−L1 distance), summed over the others.
    """

    def __init__(self, features: int, kernels: int, dims: int = 8) -> None:
        super().__init__()
        self.rows = nn.Linear(features, kernels * dims, bias=False)
        self.shape = (kernels, dims)

    def forward(self, features: Tensor) -> Tensor:
        rows = self.rows(features).unflatten(1, self.shape)  # [N, kernels, dims]
        distance = (rows[:, None] - rows[None]).abs().sum(3)  # [N, N, kernels]
        closeness = torch.exp(-distance).sum(1) - 1  # without the picture itself
        return torch.cat((features, closeness), dim=1)


def minibatch_layer(features: int, kernels: int) -> tuple[nn.Module, int]:
    """Minibatch discrimination of so many kernels, or nothing at all for 0; and the features that come out of it."""
    if not kernels:
        return nn.Identity(), features
    return MinibatchDiscrimination(features, kernels), features + kernels


def normalise(norm: str, maps: int) -> nn.Module:
    """The normalisation called `norm`, of so many maps. Raises InvalidInput with the names there are."""
    if norm not in NORMS:
        raise InvalidInput("discriminator_norm", f"got {norm!r}, expected one of {', '.join(NORMS)}")
    return NORMS[norm](maps)


def finish(discriminator: nn.Module, norm: str) -> None:
    """Under "spectral", every layer's largest singular value becomes 1: Miyato et al. 2018 (arXiv 1802.05957)."""
    if norm == "spectral":
        for layer in [one for one in discriminator.modules() if isinstance(one, nn.Conv2d | nn.Linear)]:
            spectral_norm(layer)
