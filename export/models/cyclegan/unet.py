"""The U-Net generator of pix2pix: halvings down to a few pixels, as many doublings, and a skip at every size.
generator.py builds it.

Isola et al. 2017 (arXiv 1611.07004, appendix 6.1): C64-C128-C256-C512-C512-C512-C512-C512 and back, with kernels of 4 px,
LeakyReLU 0.2 on the way down, ReLU on the way up. Blocks hold one another, so that parameters have the names of
pytorch-CycleGAN-and-pix2pix's UnetGenerator (`model.model.0.weight`, `model.model.1.model.3.model.1.weight`).

In that code base dropout, and batch norm's statistics of the very picture, stay on when pictures are translated, unless it is
given `--eval`. Here a network is always in eval mode: an answer must not depend on chance, nor on the pictures that share its
batch. Dropout as noise gives, in the paper's words, "only minor stochasticity in the output". Batch norm makes a
difference; `norm=picture` computes as that code base does with one picture (layers.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.models.cyclegan.layers import initialise, norm_layer

WIDEST = 8  # times the first layer's maps
LEAST_DOWNS = 2


def widths(features: int, downs: int) -> list[int]:
    """The maps after each halving."""
    return [features * min(2**number, WIDEST) for number in range(downs)]


def halving(inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)


def doubling(inputs: int, outputs: int, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)


class SkipBlock(nn.Module):
    """Halves maps, gives them to the block inside it, and doubles the result: [N, outer, H, W] → [N, 2·outer, H, W], of which
    the first `outer` maps are the input itself.

    inner: maps at half of the size. inside: the block between, which gives 2·inner maps; None for the innermost.
    """

    def __init__(
        self, outer: int, inner: int, inside: nn.Module | None, *, norm: str, dropout: float
    ) -> None:
        super().__init__()
        normalise, bias = norm_layer(norm)
        layers: list[nn.Module] = [nn.LeakyReLU(0.2), halving(outer, inner, bias=bias)]
        maps = inner
        if inside is not None:
            layers += [normalise(inner), inside]
            maps = 2 * inner
        layers += [nn.ReLU(), doubling(maps, outer, bias=bias), normalise(outer)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.model(x)), dim=1)


class Outermost(nn.Module):
    """The first halving, the blocks, the last doubling and tanh: [N, in, H, W] → [N, out, H, W] in [-1, 1]."""

    def __init__(
        self, in_channels: int, out_channels: int, features: int, inside: nn.Module, *, bias: bool
    ) -> None:
        super().__init__()
        last = doubling(2 * features, out_channels, bias=True)
        self.model = nn.Sequential(
            halving(in_channels, features, bias=bias), inside, nn.ReLU(), last, nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        translated: Tensor = self.model(x)
        return translated


class UNet(nn.Module):
    """[N, in, H, W] float32 in [-1, 1] → [N, out, H, W] in [-1, 1]. H and W: multiples of 2^downs.

    features: maps after the first halving. downs: halvings, of which the paper has 8. norm: one of layers.NORMS. dropout:
    the share of maps that is dropped while it trains, in the blocks where the paper does so.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, features: int, downs: int, norm: str, dropout: float
    ) -> None:
        super().__init__()
        if downs < LEAST_DOWNS:
            raise ValueError(f"downs: got {downs}, expected {LEAST_DOWNS} or more")
        maps = widths(features, downs)
        block: nn.Module | None = None
        for number in range(downs - 1, 0, -1):
            drops = number < downs - 1 and maps[number - 1] == maps[-1]
            block = SkipBlock(
                maps[number - 1], maps[number], block, norm=norm, dropout=dropout if drops else 0.0
            )
        assert block is not None, "there are at least two halvings"
        _, bias = norm_layer(norm)
        self.model = Outermost(in_channels, out_channels, features, block, bias=bias)
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        translated: Tensor = self.model(image)
        return translated
