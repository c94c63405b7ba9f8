"""A head start for upscalers: a network that is exactly bilinear interpolation before its first step."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from export.models.esrgan.generator import RRDBNet


@torch.no_grad()
def start_as_bilinear(generator: RRDBNet) -> None:
    """Let three channels carry the picture, interpolated, past the trunk to the output.

    Nearest ×2 and then (1, 2, 1)/4 along both axes is bilinear ×2. The picture is positive, so the leaky ReLUs let
    it through. The other channels, and all that the trunk adds, are free to learn the difference.
    """
    if generator.unshuffle > 1:
        return
    tent = torch.tensor([1.0, 2.0, 1.0]) / 4
    spread, same = torch.outer(tent, tent), torch.zeros(3, 3)
    same[1, 1] = 1.0
    carry(generator.conv_first, same)
    for name in generator.ups:
        carry(cast(nn.Conv2d, generator.get_submodule(name)), spread)
    carry(generator.conv_hr, same)
    carry(generator.conv_last, same)
    silence(generator.conv_body)


def carry(conv: nn.Conv2d, kernel: Tensor) -> None:
    """Make `conv`'s first three outputs its first three inputs, each filtered by `kernel` [3, 3]."""
    silence(conv)
    for channel in range(3):
        conv.weight[channel, channel] = kernel


def silence(conv: nn.Conv2d) -> None:
    """Make `conv`'s first three outputs 0."""
    conv.weight[:3] = 0.0
    if conv.bias is not None:
        conv.bias[:3] = 0.0
