"""Initialises an SRResNet to be bilinear interpolation (`start_as_bilinear`).

The compact recipe starts with it: otherwise the network would need thousands of steps to learn to copy its input.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from export.models.srgan.generator import ResidualBlock, SRResNet, Upsampling

RGB = 3


@torch.no_grad()
def start_as_bilinear(generator: SRResNet) -> None:
    """Change `generator`'s weights so that three of its channels carry the picture, interpolated ×2 by each upsampling.

    The picture is positive, so the activations do not change it. The other channels keep their random weights, which learn
    the difference. With a tanh at the end it is only nearly so: bright and dark values come out paler.
    """
    first, last = cast(nn.Conv2d, generator.first[0]), generator.last
    convolution, closing = generator.trunk
    for block in generator.body:
        clear(cast(ResidualBlock, block).norm2)
    clear(closing if isinstance(closing, nn.BatchNorm2d) else cast(nn.Conv2d, convolution))
    for layer in (first, last):
        clear(layer)
        for channel in range(RGB):
            layer.weight[channel, channel, 4, 4] = 1.0
    for up in generator.ups:
        interpolate(cast(Upsampling, up).conv)
    assert last.bias is not None
    last.weight.mul_(2.0)  # from [0, 1] to [-1, 1]
    last.bias.fill_(-1.0)


def interpolate(conv: nn.Conv2d) -> None:
    """Let a sub-pixel convolution interpolate the first three channels bilinearly: each new pixel is ¼ off the old one."""
    before, after = torch.tensor([0.25, 0.75, 0.0]), torch.tensor([0.0, 0.75, 0.25])
    clear(conv, 4 * RGB)
    for channel in range(RGB):
        for place, (down, across) in enumerate((a, b) for a in (before, after) for b in (before, after)):
            conv.weight[4 * channel + place, channel] = torch.outer(down, across)


def clear(layer: nn.Conv2d | nn.BatchNorm2d, channels: int = RGB) -> None:
    """Let the first outputs of `layer` be 0."""
    layer.weight[:channels] = 0.0
    assert layer.bias is not None
    layer.bias[:channels] = 0.0
