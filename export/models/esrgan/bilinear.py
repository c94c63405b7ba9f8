"""Initialises an RRDBNet to be exactly bilinear interpolation (`start_as_bilinear`).

The compact recipe starts with it: otherwise the network would need thousands of steps to learn to copy its input.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from export.models.esrgan.generator import RRDBNet


@torch.no_grad()
def start_as_bilinear(generator: RRDBNet) -> None:
    """Change `generator`'s weights so that three of its channels carry the picture, interpolated, to the output.

    Nearest-neighbour ×2 followed by the filter (1, 2, 1)/4 along both axes is bilinear ×2. The picture is positive, so the
    leaky ReLUs do not change it. The other channels and the trunk keep their random weights and learn the difference. A
    generator with a pixel-unshuffle in front is not changed.
    """
    if generator.unshuffle > 1:
        return
    tent = torch.tensor([1.0, 2.0, 1.0]) / 4
    bilinear, identity = torch.outer(tent, tent), torch.zeros(3, 3)
    identity[1, 1] = 1.0
    filter_rgb(generator.conv_first, identity)
    for name in generator.ups:
        filter_rgb(cast(nn.Conv2d, generator.get_submodule(name)), bilinear)
    filter_rgb(generator.conv_hr, identity)
    filter_rgb(generator.conv_last, identity)
    zero_rgb(generator.conv_body)


def filter_rgb(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Let the first three outputs of `conv` be its first three inputs, filtered by `kernel`, [3, 3]."""
    zero_rgb(conv)
    for channel in range(3):
        conv.weight[channel, channel] = kernel


def zero_rgb(conv: nn.Conv2d) -> None:
    """Let the first three outputs of `conv` be 0."""
    conv.weight[:3] = 0.0
    if conv.bias is not None:
        conv.bias[:3] = 0.0
