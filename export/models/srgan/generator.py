"""SRGAN's generator SRResNet, which upscales pictures by residual blocks and sub-pixel convolutions, and its SPEC.

Paper: Ledig et al. 2016, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (arXiv
1609.04802), figure 4. Inputs are in [0, 1] and outputs in [-1, 1], as in its section 3.2. leftthomas/SRGAN, whose
checkpoints are common, ends in a tanh, and its first version has an activation in place of the trunk's batch norm; both
are options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec

SLOPE = 0.2
SCALES = (2, 4, 8)
ACTIVATIONS = ("prelu", "leaky")
# Output → the range of its values.
OUTPUTS = {"linear": (-1.0, 1.0), "tanh": (0.0, 1.0)}


@dataclass(frozen=True)
class Config:
    """features: channels of the trunk. blocks: residual blocks.

    activation: "prelu", with one learned slope a layer, or "leaky" for LeakyReLU with slope 0.2 throughout.
    trunk_norm: whether batch norm follows the trunk's last convolution, as in the paper; otherwise the activation does.
    output: "linear", in [-1, 1], as in the paper, or "tanh" for (tanh + 1)/2, in [0, 1].
    """

    features: int = 64
    blocks: int = 16
    scale: Literal[2, 4, 8] = 4
    activation: Literal["prelu", "leaky"] = "prelu"
    trunk_norm: bool = True
    output: Literal["linear", "tanh"] = "linear"
    in_channels: int = 3
    out_channels: int = 3


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm inside a residual. [N, features, H, W] → the same shape."""

    def __init__(self, features: int, activation: str) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(features, features, 3), nn.BatchNorm2d(features)
        self.act = activated(activation)
        self.conv2, self.norm2 = conv(features, features, 3), nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class Upsampling(nn.Module):
    """A sub-pixel convolution (Shi et al. 2016, arXiv 1609.05158). [N, features, H, W] → [N, features, 2H, 2W]."""

    def __init__(self, features: int, activation: str) -> None:
        super().__init__()
        self.conv = conv(features, 4 * features, 3)
        self.shuffle = nn.PixelShuffle(2)
        self.act = activated(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shuffle(self.conv(x)))


class SRResNet(nn.Module):
    """[N, in, H, W] float32 in [0, 1] → [N, out, S·H, S·W], nominally in the output's range, which only tanh keeps to.

    Raises ValueError for an option that it does not have.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        check(config)
        width, activation = config.features, config.activation
        self.tanh = config.output == "tanh"
        self.first = nn.Sequential(conv(config.in_channels, width, 9), activated(activation))
        self.body = nn.Sequential(*(ResidualBlock(width, activation) for _ in range(config.blocks)))
        closing = nn.BatchNorm2d(width) if config.trunk_norm else activated(activation)
        self.trunk = nn.Sequential(conv(width, width, 3), closing)
        self.ups = nn.Sequential(
            *(Upsampling(width, activation) for _ in range(config.scale.bit_length() - 1))
        )
        self.last = conv(width, config.out_channels, 9)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        x = self.last(self.ups(x + self.trunk(self.body(x))))
        return (torch.tanh(x) + 1) / 2 if self.tanh else x


def check(config: Config) -> None:
    for key, value, expected in (
        ("scale", config.scale, SCALES),
        ("activation", config.activation, ACTIVATIONS),
        ("output", config.output, tuple(OUTPUTS)),
    ):
        if value not in expected:
            raise ValueError(f"{key}: got {value}, expected one of {', '.join(map(str, expected))}")


def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def activated(activation: str) -> nn.Module:
    return nn.PReLU() if activation == "prelu" else nn.LeakyReLU(SLOPE)


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", config.in_channels, "H", "W"), (0.0, 1.0))
    limits = OUTPUTS.get(config.output)
    upscaled = TensorSpec("upscaled", "float32", ("N", config.out_channels, "SH", "SW"), limits)
    return Signature(inputs=(image,), outputs=(upscaled,), scale=config.scale)


SPEC = Spec(
    task="upscale",
    config=Config,
    module=SRResNet,
    signature=signature,
    tiny=Config(features=8, blocks=1),
    tolerances={
        "float32": Tolerance(80.0, 4e-3, "summation order: leftthomas' ×2 measures 114 dB and more"),
        "float16": Tolerance(
            45.0,
            1e-1,
            "11-bit significands: leftthomas' ×2 measures 51 dB on 1×2 px, 55 and more on pictures",
        ),
        "bfloat16": Tolerance(
            28.0,
            5e-1,
            "8-bit significands: leftthomas' ×2 measures 31 dB on one pixel, 39 and more on pictures",
        ),
    },
)
