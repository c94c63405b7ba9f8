"""The ResNet generator of CycleGAN: two halvings, residual blocks, two doublings. generator.py builds it.

Johnson et al. 2016 (arXiv 1603.08155) as Zhu et al. 2017 (arXiv 1703.10593) use it: c7s1-64, d128, d256, R256 × blocks,
u128, u64, c7s1-3. All layers are in one nn.Sequential, so that parameters have the names of pytorch-CycleGAN-and-pix2pix
(`model.{i}.weight`, `model.{i}.conv_block.{j}.weight`).
"""

from __future__ import annotations

from torch import Tensor, nn

from export.models.cyclegan.layers import initialise, norm_layer

HALVINGS = 2
SIZE_MULTIPLE = 2**HALVINGS
# The residual blocks mirror one pixel, and so need two a side.
LEAST_SIDE_PX = 2 * SIZE_MULTIPLE


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with reflection padding, and a shortcut. [N, maps, H, W] → the same shape."""

    def __init__(self, maps: int, norm: str) -> None:
        super().__init__()
        normalise, bias = norm_layer(norm)
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3, bias=bias),
            normalise(maps),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3, bias=bias),
            normalise(maps),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResNet(nn.Module):
    """[N, in, H, W] float32 in [-1, 1] → [N, out, H, W] in [-1, 1]. H and W: multiples of 4, from 8.

    features: maps after the first layer; the residual blocks have four times as many. norm: one of layers.NORMS.
    """

    def __init__(self, *, in_channels: int, out_channels: int, features: int, blocks: int, norm: str) -> None:
        super().__init__()
        normalise, bias = norm_layer(norm)
        maps = features
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, maps, 7, bias=bias),
            normalise(maps),
            nn.ReLU(inplace=True),
        ]
        for _ in range(HALVINGS):
            halving = nn.Conv2d(maps, 2 * maps, 3, stride=2, padding=1, bias=bias)
            layers += [halving, normalise(2 * maps), nn.ReLU(inplace=True)]
            maps *= 2
        layers += [ResidualBlock(maps, norm) for _ in range(blocks)]
        for _ in range(HALVINGS):
            doubling = nn.ConvTranspose2d(
                maps, maps // 2, 3, stride=2, padding=1, output_padding=1, bias=bias
            )
            layers += [doubling, normalise(maps // 2), nn.ReLU(inplace=True)]
            maps //= 2
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(maps, out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)
