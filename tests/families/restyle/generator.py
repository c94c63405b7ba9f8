"""An image-to-image network with global statistics, as in fast style transfer, which needs whole pictures.

Ulyanov et al. 2016 (arXiv 1607.08022): every layer's maps are normalised by their mean and variance over the picture,
so that a tile, which has other statistics than the picture, would come out in other colours. As in Johnson et al. 2016
(arXiv 1603.08155), convolutions see the picture mirrored at its edges, and the inner ones run at half of its size.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec

# Maps are halved once, and the first convolution mirrors four pixels, which needs five.
HALVED, MIRRORED_PX = 2, 4


@dataclass(frozen=True)
class Config:
    """features: maps of each layer. layers: normalised convolutions at half of the size."""

    features: int = 32
    layers: int = 3


class Restyle(nn.Module):
    """[N, 3, H, W] float32 in [0, 1] → the same shape, in [0, 1]. H and W even, at least 6."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_layer(3, config.features, 2 * MIRRORED_PX + 1, 1),
            *_layer(config.features, config.features, 3, HALVED),
        )
        for _ in range(config.layers):
            self.layers.extend(_layer(config.features, config.features, 3, 1))
        self.layers.append(nn.Upsample(scale_factor=HALVED, mode="nearest"))
        self.layers.extend([nn.ReflectionPad2d(1), nn.Conv2d(config.features, 3, 3), nn.Sigmoid()])

    def forward(self, image: Tensor) -> Tensor:
        restyled: Tensor = self.layers(image)
        return restyled


def _layer(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride)
    return [nn.ReflectionPad2d(kernel // 2), convolution, nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()]


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    restyled = TensorSpec("restyled", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
    return Signature(
        (image,),
        (restyled,),
        size_multiple=HALVED,
        least_side_px=MIRRORED_PX + 1,
        padding="reflect",
        tiled=False,
    )


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
