"""ESRGAN's generator RRDBNet, which upscales pictures by residual-in-residual dense blocks, and its SPEC.

Paper: Wang et al. 2018, "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks" (arXiv 1809.00219).
Scales 1 and 2 are built as in Real-ESRGAN (arXiv 2107.10833): the ×4 network with a pixel-unshuffle in front, unless
`unshuffle` says otherwise. `plus` adds the shortcuts of ESRGAN+ (Rakotonirina and Rasoanaivo 2020, arXiv 2001.08073),
without its noise, which is only for training. Parameter names are those of BasicSR's checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec

RESIDUAL_SCALE = 0.2
SLOPE = 0.2
SCALES = (1, 2, 3, 4, 8)
UNSHUFFLES = (1, 2, 4)
# Scale → the factor of Real-ESRGAN's pixel-unshuffle; at other scales there is none.
USUAL_UNSHUFFLE = {1: 4, 2: 2}


@dataclass(frozen=True)
class Config:
    """features: channels of the trunk. blocks: RRDB blocks. growth: channels that each dense convolution adds.

    unshuffle: the factor of the pixel-unshuffle in front: 1 for none, 2, 4, or 0 for Real-ESRGAN's factor at this scale
    (USUAL_UNSHUFFLE). That factor is always stored as 0, so that equal networks have equal configurations.
    plus: ESRGAN+'s shortcuts inside the dense blocks.
    """

    features: int = 64
    blocks: int = 23
    growth: int = 32
    scale: Literal[1, 2, 3, 4, 8] = 4
    in_channels: int = 3
    out_channels: int = 3
    unshuffle: int = 0
    plus: bool = False

    def __post_init__(self) -> None:
        if self.unshuffle == USUAL_UNSHUFFLE.get(self.scale, 1):
            object.__setattr__(self, "unshuffle", 0)

    @property
    def folded(self) -> int:
        """The factor of the pixel-unshuffle in front, 1 for none."""
        return self.unshuffle or USUAL_UNSHUFFLE.get(self.scale, 1)

    @property
    def steps(self) -> tuple[int, ...]:
        """The factors of the upsamplings at the end. Raises ValueError if scale and unshuffle cannot work."""
        if self.scale not in SCALES:
            raise ValueError(f"scale: got {self.scale}, expected one of {list(SCALES)}")
        if self.folded not in UNSHUFFLES or (self.scale == 3 and self.folded > 1):
            fitting = UNSHUFFLES if self.scale != 3 else UNSHUFFLES[:1]
            raise ValueError(f"unshuffle: got {self.unshuffle}, expected one of {list(fitting)}")
        if self.scale == 3:
            return (3,)
        return (2,) * ((self.scale * self.folded).bit_length() - 1)


class DenseBlock(nn.Module):
    """Five convolutions; each takes the outputs of all before it. [N, features, H, W] → the same shape.

    plus: ESRGAN+'s two shortcuts: conv1x1 of the input is added to the second convolution's output, and that sum to the
    fourth's.
    """

    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d
    conv4: nn.Conv2d
    conv5: nn.Conv2d

    def __init__(self, features: int, growth: int, *, plus: bool = False) -> None:
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
        self.conv1x1 = nn.Conv2d(features, growth, 1, bias=False) if plus else None

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat((x, F.leaky_relu(self.conv1(x), SLOPE)), dim=1)
        second = F.leaky_relu(self.conv2(seen), SLOPE)
        if self.conv1x1 is not None:
            second = second + self.conv1x1(x)
        seen = torch.cat((seen, second), dim=1)
        seen = torch.cat((seen, F.leaky_relu(self.conv3(seen), SLOPE)), dim=1)
        fourth = F.leaky_relu(self.conv4(seen), SLOPE)
        if self.conv1x1 is not None:
            fourth = fourth + second
        seen = torch.cat((seen, fourth), dim=1)
        return x + self.conv5(seen) * RESIDUAL_SCALE


class RRDB(nn.Module):
    """Three dense blocks inside one residual. [N, features, H, W] → the same shape."""

    def __init__(self, features: int, growth: int, *, plus: bool = False) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth, plus=plus)
        self.rdb2 = DenseBlock(features, growth, plus=plus)
        self.rdb3 = DenseBlock(features, growth, plus=plus)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.rdb3(self.rdb2(self.rdb1(x))) * RESIDUAL_SCALE


class RRDBNet(nn.Module):
    """[N, in, H, W] float32 in [0, 1] → [N, out, S·H, S·W], nominally in [0, 1] (not clipped).

    H and W must be multiples of the pixel-unshuffle's factor.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.steps, self.unshuffle = config.steps, config.folded
        width = config.features
        self.conv_first = conv3x3(config.in_channels * self.unshuffle**2, width)
        self.body = nn.Sequential(
            *(RRDB(width, config.growth, plus=config.plus) for _ in range(config.blocks))
        )
        self.conv_body = conv3x3(width, width)
        self.ups = [f"conv_up{number}" for number in range(1, len(self.steps) + 1)]
        for name in self.ups:
            self.add_module(name, conv3x3(width, width))
        self.conv_hr = conv3x3(width, width)
        self.conv_last = conv3x3(width, config.out_channels)

    def forward(self, image: Tensor) -> Tensor:
        x = F.pixel_unshuffle(image, self.unshuffle) if self.unshuffle > 1 else image
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for name, factor in zip(self.ups, self.steps, strict=True):
            x = F.interpolate(x, scale_factor=factor, mode="nearest")
            x = F.leaky_relu(self.get_submodule(name)(x), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", config.in_channels, "H", "W"), (0.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", config.out_channels, "SH", "SW"), (0.0, 1.0))
    return Signature(inputs=(image,), outputs=(upscaled,), scale=config.scale, size_multiple=config.folded)


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
