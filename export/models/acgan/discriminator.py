"""ACGAN's discriminator: six convolutions and two heads, one for real or generated, one for the class. recipes.py uses it.

Paper: Odena et al. 2016 (arXiv 1610.09585), the table for CIFAR-10. Its strided layers have 3×3 kernels, whose gradient is
uneven between pixels (squared, by pixel parity: 0.96, 0.77, 0.54, 1.73). So they hardly see the grid that the generator's
5×5 transposed convolutions leave. With 4×4 kernels, an option, the gradient is even (0.95 to 1.04).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.networks.discriminators import (
    DiscriminatorOutput,
    constrain_weights,
    convolution,
    initialise_gaussian,
    minibatch_layer,
)
from runtime.errors import InvalidInput

KERNELS = (3, 4)  # of the strided layers; the others are 3×3


class ActivationNoise(nn.Module):
    """Adds noise from N(0, std) to its input, of any shape, in training only."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x) if self.training and self.std else x


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → DiscriminatorOutput, with class logits [N, classes].

    width: maps after the first layer. norm: one of networks.discriminators.NORMS. kernel: of the strided layers, one of
    KERNELS. dropout: probability, after each layer. noise: standard deviation of the noise added to each layer's
    activations. minibatch_kernels: of minibatch discrimination; 0 for none.
    """

    def __init__(
        self, *, size: int, channels: int, classes: int, width: int, norm: str, kernel: int,
        dropout: float, noise: float, minibatch_kernels: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if kernel not in KERNELS:
            raise InvalidInput("discriminator_kernel", f"got {kernel}, expected one of {KERNELS}")
        layers: list[nn.Module] = []
        inputs = channels
        for layer in range(6):
            outputs = width * 2**layer
            stride = 2 - layer % 2
            layers += convolution(
                inputs, outputs, kernel if stride == 2 else 3, norm if layer else "none", stride=stride
            )
            layers += [nn.LeakyReLU(0.2, inplace=True), ActivationNoise(noise), nn.Dropout(dropout)]
            inputs = outputs
        self.main = nn.Sequential(*layers, nn.Flatten())
        seen = inputs * (size // 8) ** 2
        self.minibatch, features = minibatch_layer(seen, minibatch_kernels)
        self.source = nn.Linear(features, 1)
        self.category = nn.Linear(seen, classes)
        initialise_gaussian(self)
        constrain_weights(self, norm)

    def forward(self, image: Tensor) -> DiscriminatorOutput:
        features = self.main(image)
        logits = self.source(self.minibatch(features)).flatten()
        return DiscriminatorOutput(logits, features, self.category(features))
