"""SRResNet, which upscales ×2, with inputs and outputs in [-1, 1].

Paper: Ledig et al. 2017 (arXiv 1609.04802): residual blocks with batch norm and PReLU, sub-pixel convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Config:
    """features: maps of the trunk. blocks: residual blocks. kernel: side of the first and the last convolution."""

    features: int = 64
    blocks: int = 16
    scale: Literal[2, 4] = 2
    kernel: int = 9


class Block(nn.Module):
    """[N, features, H, W] → the same shape."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(features, features), nn.BatchNorm2d(features), nn.PReLU(),
            conv(features, features), nn.BatchNorm2d(features),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SRResNet(nn.Module):
    """[N, 3, H, W] float32 in [-1, 1] → [N, 3, S·H, S·W] float32 in [-1, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.scale not in (2, 4):
            raise ValueError(f"scale: got {config.scale}, expected 2 or 4")
        width = config.features
        self.first = nn.Sequential(conv(3, width, config.kernel), nn.PReLU())
        self.body = nn.Sequential(*(Block(width) for _ in range(config.blocks)))
        self.trunk = nn.Sequential(conv(width, width), nn.BatchNorm2d(width))
        ups: list[nn.Module] = []
        for _ in range(config.scale.bit_length() - 1):
            ups += [conv(width, 4 * width), nn.PixelShuffle(2), nn.PReLU()]
        self.up = nn.Sequential(*ups)
        self.last = conv(width, 3, config.kernel)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        return torch.tanh(self.last(self.up(x + self.trunk(self.body(x)))))


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (-1.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (-1.0, 1.0))
    return Signature((image,), (upscaled,), scale=config.scale)


SPEC = Spec(
    task="upscale",
    config=Config,
    module=SRResNet,
    signature=signature,
    tiny=Config(features=8, blocks=1, kernel=5),
    tolerances={
        "float32": Tolerance(80.0, 4e-3, "summation order, and batch norm folded into the weights"),
        "float16": Tolerance(50.0, 1e-1, "11-bit significands through the trunk; tanh flattens what is left"),
        "bfloat16": Tolerance(36.0, 5e-1, "8-bit significands through the trunk"),
    },
)
