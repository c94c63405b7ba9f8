"""ESRGAN's generator: RRDBNet, residual-in-residual dense blocks without batch norm.

Paper: Wang et al. 2018, "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (arXiv 1809.00219).
Scales 1 and 2 take Real-ESRGAN's form (arXiv 2107.10833): a pixel-unshuffle in front of the ×4 network.
Parameter names are those of BasicSR's checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec

RESIDUAL_SCALE = 0.2
SLOPE = 0.2
# How many pixels along a side the pixel-unshuffle folds into channels, and how many ×2 steps the tail takes.
UNSHUFFLE = {1: 4, 2: 2, 4: 1, 8: 1}
UPSAMPLINGS = {1: 2, 2: 2, 4: 2, 8: 3}


@dataclass(frozen=True)
class Config:
    """features: trunk width; blocks: RRDB blocks; growth: channels each dense convolution adds."""

    features: int = 64
    blocks: int = 23
    growth: int = 32
    scale: Literal[1, 2, 4, 8] = 4
    in_channels: int = 3
    out_channels: int = 3


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees all before it. [N, features, H, W] → the same shape."""

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d
    conv4: nn.Conv2d
    conv5: nn.Conv2d

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for step in range(1, 6):
            width = growth if step < 5 else features
            self.add_module(f"conv{step}", conv3x3(features + (step - 1) * growth, width))
        for conv in self.children():
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            # Small weights keep a deep stack of residuals near the identity at the start of training.
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, F.leaky_relu(conv(seen), SLOPE)), dim=1)
        return x + self.conv5(seen) * RESIDUAL_SCALE


class RRDB(nn.Module):
    """Three dense blocks inside one residual. [N, features, H, W] → the same shape."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.rdb3(self.rdb2(self.rdb1(x))) * RESIDUAL_SCALE


class RRDBNet(nn.Module):
    """[N, in, H, W] float32 in [0, 1] → [N, out, S·H, S·W], nominally in [0, 1] (not clipped).

    H and W are multiples of 4 at scale 1 and of 2 at scale 2.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.scale not in UPSAMPLINGS:
            raise ValueError(f"scale: got {config.scale}, expected one of {sorted(UPSAMPLINGS)}")
        width = config.features
        self.unshuffle = UNSHUFFLE[config.scale]
        self.conv_first = conv3x3(config.in_channels * self.unshuffle**2, width)
        self.body = nn.Sequential(*(RRDB(width, config.growth) for _ in range(config.blocks)))
        self.conv_body = conv3x3(width, width)
        self.ups = [f"conv_up{step}" for step in range(1, UPSAMPLINGS[config.scale] + 1)]
        for name in self.ups:
            self.add_module(name, conv3x3(width, width))
        self.conv_hr = conv3x3(width, width)
        self.conv_last = conv3x3(width, config.out_channels)

    def forward(self, image: Tensor) -> Tensor:
        x = F.pixel_unshuffle(image, self.unshuffle) if self.unshuffle > 1 else image
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for name in self.ups:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(name)(x), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", config.in_channels, "H", "W"), (0.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", config.out_channels, "SH", "SW"), (0.0, 1.0))
    return Signature(
        inputs=(image,), outputs=(upscaled,), scale=config.scale, size_multiple=UNSHUFFLE[config.scale]
    )


SPEC = Spec(
    task="upscale",
    config=Config,
    module=RRDBNet,
    signature=signature,
    tiny=Config(features=8, blocks=1, growth=4),
    tolerances={
        "float32": Tolerance(80.0, 2e-3, "summation order only: other libraries measure 100 dB and more"),
        "float16": Tolerance(
            50.0, 5e-2, "11-bit significands through the trunk: trained nets measure 60 dB and more"
        ),
        "bfloat16": Tolerance(
            40.0, 2e-1, "8-bit significands through the trunk: trained nets measure 48-55 dB"
        ),
    },
)
