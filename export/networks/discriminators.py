"""What every discriminator returns, and the layers that several families' discriminators share.

A family's own discriminator is export/models/<family>/discriminator.py; export/training/adversarial.py trains it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from runtime.errors import InvalidInput


def affine_instance_norm(maps: int) -> nn.Module:
    return nn.InstanceNorm2d(maps, affine=True)


# Name → the layer after a convolution with so many maps. "spectral" normalises weights instead, in `constrain_weights`.
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": affine_instance_norm,
    "spectral": nn.Identity,
    "none": nn.Identity,
}


class DiscriminatorOutput(NamedTuple):
    """A discriminator's output for N pictures.

    logits: [N], positive for pictures that it takes for real. features: [N, F], before the last layer. classes: [N, K]
    logits of the classes; empty if it has no class head.
    """

    logits: Tensor
    features: Tensor
    classes: Tensor = torch.empty(0)


class MinibatchDiscrimination(nn.Module):
    """Appends to each picture's features how similar the other pictures of the batch are, which exposes mode collapse.

    [N, F] → [N, F + kernels]: Salimans et al. 2016 (arXiv 1606.03498), section 3.2. Each feature vector becomes
    `kernels` rows of `dims` values; a row's closeness to another picture's is exp(−L1 distance), summed over the others.
    The rows' weights keep PyTorch's initialisation: at N(0, 0.02) all distances are near 0 and every picture looks alike.
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
    """Minibatch discrimination with `kernels` kernels (for 0 an identity), and how many features it gives."""
    if not kernels:
        return nn.Identity(), features
    return MinibatchDiscrimination(features, kernels), features + kernels


def convolution(
    inputs: int, outputs: int, kernel: int, norm: str, *, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    """A convolution with padding 1 and the normalisation after it, one of NORMS.

    The convolution has a bias unless batch norm follows, which subtracts it and adds its own. Raises InvalidInput for an
    unknown `norm`.
    """
    if norm not in NORMS:
        raise InvalidInput("discriminator_norm", f"got {norm!r}, expected one of {', '.join(NORMS)}")
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, bias=norm != "batch")
    return layer, NORMS[norm](outputs)


def initialise_gaussian(discriminator: nn.Module) -> None:
    """Weights of convolutions and linear layers N(0, 0.02), biases 0. Minibatch discrimination is left as it is."""
    kept = {
        layer
        for part in discriminator.modules()
        if isinstance(part, MinibatchDiscrimination)
        for layer in part.modules()
    }
    for layer in discriminator.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer not in kept:
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def constrain_weights(discriminator: nn.Module, norm: str) -> None:
    """Under "spectral", hold every layer's largest singular value at 1: Miyato et al. 2018 (arXiv 1802.05957)."""
    if norm == "spectral":
        for layer in list(discriminator.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spectral_norm(layer)
