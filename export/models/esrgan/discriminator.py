"""ESRGAN's discriminator, VGG-style with strided convolutions instead of pooling. recipes.py uses it in the second stage.

Paper: Wang et al. 2018 (arXiv 1809.00219); layers as in BasicSR's VGGStyleDiscriminator.
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


class Discriminator(nn.Module):
    """[N, 3, side, side] float32 in [0, 1] → DiscriminatorOutput.

    side_px: a multiple of 32 (five halvings), 128 in the paper. width: maps after the first layer. norm: one of
    networks.discriminators.NORMS. minibatch_kernels: of minibatch discrimination; 0 for none.
    """

    def __init__(self, *, side_px: int, width: int, norm: str, minibatch_kernels: int) -> None:
        super().__init__()
        if side_px % 32:
            raise InvalidInput(
                "patch_px",
                f"the discriminator sees {side_px} px a side, expected a multiple of 32 (patch × scale)",
            )
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        maps = width
        for halving in range(5):
            layers += [*convolution(maps, maps, 4, norm, stride=2), nn.LeakyReLU(0.2, inplace=True)]
            if halving < 4:
                wider = width * min(2 ** (halving + 1), 8)
                layers += [*convolution(maps, wider, 3, norm), nn.LeakyReLU(0.2, inplace=True)]
                maps = wider
        self.main = nn.Sequential(*layers, nn.Flatten())
        self.minibatch, seen = minibatch_layer(maps * (side_px // 32) ** 2, minibatch_kernels)
        self.head = nn.Sequential(nn.Linear(seen, 100), nn.LeakyReLU(0.2, inplace=True), nn.Linear(100, 1))
        constrain_weights(self, norm)

    def forward(self, image: Tensor) -> DiscriminatorOutput:
        features = self.main(image)
        return DiscriminatorOutput(self.head(self.minibatch(features)).flatten(), features)
