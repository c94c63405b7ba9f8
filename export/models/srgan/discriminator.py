"""SRGAN's discriminator: eight convolutions, of which every second one halves the sides. recipes.py uses it.

Paper: Ledig et al. 2016 (arXiv 1609.04802), figure 4.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.networks.discriminators import (
    DiscriminatorOutput,
    constrain_weights,
    convolution,
    minibatch_layer,
)
from runtime.errors import InvalidInput

HALVINGS = 4
HIDDEN = 1024  # of the dense layer, at the paper's width of 64


class Discriminator(nn.Module):
    """[N, 3, side, side] float32 in the generator's output range → DiscriminatorOutput.

    side_px: a multiple of 16 (four halvings), 96 in the paper. width: maps after the first layer, 64 in the paper; the other
    layers are in proportion. norm: one of networks.discriminators.NORMS. minibatch_kernels: of minibatch discrimination; 0
    for none.
    """

    def __init__(self, *, side_px: int, width: int, norm: str, minibatch_kernels: int) -> None:
        super().__init__()
        if side_px % 2**HALVINGS:
            raise InvalidInput(
                "patch_px",
                f"the discriminator sees {side_px} px a side, expected a multiple of {2**HALVINGS} (patch × scale)",
            )
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        maps = width
        for step in range(1, 2 * HALVINGS):
            wider, stride = width * 2 ** (step // 2), 1 + step % 2
            layers += [*convolution(maps, wider, 3, norm, stride=stride), nn.LeakyReLU(0.2, inplace=True)]
            maps = wider
        self.main = nn.Sequential(*layers, nn.Flatten())
        self.minibatch, seen = minibatch_layer(maps * (side_px // 2**HALVINGS) ** 2, minibatch_kernels)
        hidden = HIDDEN * width // 64
        self.head = nn.Sequential(
            nn.Linear(seen, hidden), nn.LeakyReLU(0.2, inplace=True), nn.Linear(hidden, 1)
        )
        constrain_weights(self, norm)

    def forward(self, image: Tensor) -> DiscriminatorOutput:
        features = self.main(image)
        return DiscriminatorOutput(self.head(self.minibatch(features)).flatten(), features)
