"""An image-to-image network with global statistics, as in fast style transfer, which needs whole pictures.

Ulyanov et al. 2016 (arXiv 1607.08022): every layer's maps are normalised by their mean and variance over the picture,
so that a tile, which has other statistics than the picture, would come out in other colours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Config:
    """features: maps of each layer. layers: normalised convolutions before the last one."""

    features: int = 32
    layers: int = 3


class WholePictureNorm(nn.Module):
    """[N, C, H, W] → the same shape, mean 0 and variance 1 in each map.

    nn.InstanceNorm2d does the same and refuses a picture of one pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        return centred * torch.rsqrt((centred * centred).mean((2, 3), keepdim=True) + 1e-3)


class Restyle(nn.Module):
    """[N, 3, H, W] float32 in [0, 1] → the same shape, in [0, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for _ in range(config.layers):
            layers += [nn.Conv2d(inputs, config.features, 3, padding=1), WholePictureNorm(), nn.ReLU()]
            inputs = config.features
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 3, 3, padding=1), nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    restyled = TensorSpec("restyled", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    return Signature((image,), (restyled,), tiled=False)


SPEC = Spec(
    task="translate",
    config=Config,
    module=Restyle,
    signature=signature,
    tiny=Config(features=8, layers=2),
    tolerances={
        "float32": Tolerance(80.0, 2e-3, "summation order only"),
        "float16": Tolerance(45.0, 1e-1, "11-bit significands; the variance of flat maps is small"),
        "bfloat16": Tolerance(28.0, 5e-1, "8-bit significands; the variance of flat maps is small"),
    },
)
