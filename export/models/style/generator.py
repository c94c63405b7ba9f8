"""TransformerNet, which paints pictures in one learned style in a single pass, and its SPEC.

Paper: Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution" (arXiv 1603.08155).
The layers are those of pytorch/examples' `fast_neural_style`, and so are the parameters' names: reflection padding everywhere,
instance norm (Ulyanov et al. 2016, arXiv 1607.08022), and nearest-neighbour enlargement in place of transposed convolutions,
which draw checkerboards (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). `norm="batch"` is the paper's batch
norm: its statistics are fixed, so that pictures may be tiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec

# Values of black and white, in and out.
RANGE = (0.0, 255.0)
# Two convolutions of stride 2 halve the picture, two enlargements double it.
SIZE_MULTIPLE = 4
# Reflection padding of 4 px, around the first and the last convolution, needs 5 px or more.
LEAST_SIDE_PX = 2 * SIZE_MULTIPLE


@dataclass(frozen=True)
class Config:
    """features: maps after the first convolution; the residual blocks have four times as many. blocks: residual blocks.

    norm: "instance", for whole pictures, or "batch", for pictures that may be tiled.
    """

    features: int = 32
    blocks: int = 5
    norm: Literal["instance", "batch"] = "instance"


class InstanceNorm(nn.InstanceNorm2d):
    """Each map is normalised by its own mean and variance: [N, C, H, W] → the same shape. H·W must be 2 or more.

    The sums over a whole picture are computed in float32, also where weights and arithmetic are narrower: 11 bits are too few.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return super().forward(x)
        centred = x.float() - x.float().mean((2, 3), keepdim=True)
        variance = centred.square().mean((2, 3), keepdim=True)
        normalised = (centred * torch.rsqrt(variance + self.eps)).to(x.dtype)
        return normalised * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


NORMS: Mapping[str, Callable[[int], nn.Module]] = {"instance": InstanceNorm, "batch": nn.BatchNorm2d}


class Convolution(nn.Module):
    """A convolution with reflection padding, after an enlargement by nearest neighbours. H and W: multiples of `stride`.

    [N, in, H, W] → [N, out, H · upsample / stride, W · upsample / stride].
    """

    def __init__(self, inputs: int, outputs: int, side: int, *, stride: int = 1, upsample: int = 1) -> None:
        super().__init__()
        self.upsample = upsample
        self.reflection_pad = nn.ReflectionPad2d(side // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, side, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample > 1:
            x = F.interpolate(x, scale_factor=self.upsample, mode="nearest")
        return self.conv2d(self.reflection_pad(x))


class Residual(nn.Module):
    """Two convolutions around which the input passes. [N, features, H, W] → the same shape."""

    def __init__(self, features: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = Convolution(features, features, 3)
        self.in1 = norm(features)
        self.conv2 = Convolution(features, features, 3)
        self.in2 = norm(features)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.in1(self.conv1(x)))
        return self.in2(self.conv2(inner)) + x


class TransformerNet(nn.Module):
    """[N, 3, H, W] float32 in [0, 255] → [N, 3, H, W], nominally in [0, 255] (not clipped).

    H and W must be multiples of 4, and 8 or more.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.norm not in NORMS:
            raise ValueError(f"norm: got {config.norm!r}, expected one of {', '.join(NORMS)}")
        norm, width = NORMS[config.norm], config.features
        self.conv1, self.in1 = Convolution(3, width, 9), norm(width)
        self.conv2, self.in2 = Convolution(width, 2 * width, 3, stride=2), norm(2 * width)
        self.conv3, self.in3 = Convolution(2 * width, 4 * width, 3, stride=2), norm(4 * width)
        self.blocks = [f"res{number}" for number in range(1, config.blocks + 1)]
        for name in self.blocks:
            self.add_module(name, Residual(4 * width, norm))
        self.deconv1, self.in4 = Convolution(4 * width, 2 * width, 3, upsample=2), norm(2 * width)
        self.deconv2, self.in5 = Convolution(2 * width, width, 3, upsample=2), norm(width)
        self.deconv3 = Convolution(width, 3, 9)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.in1(self.conv1(image)))
        x = F.relu(self.in2(self.conv2(x)))
        x = F.relu(self.in3(self.conv3(x)))
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        x = F.relu(self.in4(self.deconv1(x)))
        x = F.relu(self.in5(self.deconv2(x)))
        return self.deconv3(x)


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", 3, "H", "W"), RANGE)
    painted = TensorSpec("painted", "float32", ("N", 3, "H", "W"), RANGE)
    return Signature(
        inputs=(image,),
        outputs=(painted,),
        size_multiple=SIZE_MULTIPLE,
        least_side_px=LEAST_SIDE_PX,
        padding="reflect",
        tiled=config.norm == "batch",
    )


SPEC = Spec(
    task="translate",
    config=Config,
    module=TransformerNet,
    signature=signature,
    tiny=Config(features=8, blocks=1),
    tolerances={
        "float32": Tolerance(80.0, 0.5, "summation order only: trained nets measure 110 dB and more"),
        "float16": Tolerance(
            50.0, 5.0, "11-bit significands, instance norm's sums in 24: trained nets measure 55 dB and more"
        ),
        "bfloat16": Tolerance(
            32.0, 30.0, "8-bit significands, instance norm's sums in 24: trained nets measure 38 dB and more"
        ),
    },
)
