"""Real-ESRGAN's compact generator SRVGGNetCompact, which upscales pictures fast, and its SPEC.

Public code: xinntao/Real-ESRGAN (`realesr-general-x4v3`, `realesr-animevideov3`) and BasicSR; there is no paper of its own,
arXiv 2107.10833 is that of the training. A plain stack of 3×3 convolutions runs at the input's size, and one pixel shuffle
at the end (Shi et al. 2016, arXiv 1609.05158) enlarges what it gives; the stack learns only the difference from the
nearest-neighbour enlargement of the input. Parameter names are those of the public checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec

LEAKY_SLOPE = 0.1
PRELU_SLOPE = 0.25  # PyTorch's, at the start of training
# Each makes the activation of `features` channels.
ACTIVATIONS: Mapping[str, Callable[[int], nn.Module]] = {
    "prelu": nn.PReLU,
    "relu": lambda features: nn.ReLU(),
    "leakyrelu": lambda features: nn.LeakyReLU(LEAKY_SLOPE),
}


@dataclass(frozen=True)
class Config:
    """features: channels of the stack. convolutions: between the first and the last, which change the number of channels.

    activation: after each convolution but the last; "prelu" has a slope for each channel, "leakyrelu" the slope 0.1.
    in_channels, out_channels: must be equal, since the input is added to the output.
    """

    features: int = 64
    convolutions: int = 32
    scale: int = 4
    activation: Literal["prelu", "relu", "leakyrelu"] = "prelu"
    in_channels: int = 3
    out_channels: int = 3


class SRVGGNet(nn.Module):
    """[N, C, H, W] float32 in [0, 1] → [N, C, S·H, S·W], nominally in [0, 1] (not clipped)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.activation not in ACTIVATIONS:
            raise ValueError(f"activation: got {config.activation!r}, expected one of {list(ACTIVATIONS)}")
        if config.in_channels != config.out_channels:
            raise ValueError(
                f"out_channels: got {config.out_channels}, expected in_channels, {config.in_channels}: "
                "the enlarged input is added to the output"
            )
        self.scale = config.scale
        activation = ACTIVATIONS[config.activation]
        layers: list[nn.Module] = []
        channels = config.in_channels
        for _ in range(config.convolutions + 1):
            layers += [conv3x3(channels, config.features), activation(config.features)]
            channels = config.features
        last = conv3x3(channels, config.out_channels * config.scale**2)
        # The output starts near the enlarged input, and training has less to unlearn.
        last.weight.data.mul_(0.1)
        self.body = nn.Sequential(*layers, last)

    def forward(self, image: Tensor) -> Tensor:
        difference = F.pixel_shuffle(self.body(image), self.scale)
        return difference + F.interpolate(image, scale_factor=self.scale, mode="nearest")


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A convolution whose initial weights keep the signal's size through any number of layers; PyTorch's halve it in each."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    assert conv.bias is not None
    nn.init.kaiming_normal_(conv.weight, a=PRELU_SLOPE)
    nn.init.zeros_(conv.bias)
    return conv


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", config.in_channels, "H", "W"), (0.0, 1.0))
    upscaled = TensorSpec("upscaled", "float32", ("N", config.out_channels, "SH", "SW"), (0.0, 1.0))
    return Signature(inputs=(image,), outputs=(upscaled,), scale=config.scale)


SPEC = Spec(
    task="upscale",
    config=Config,
    module=SRVGGNet,
    signature=signature,
    tiny=Config(features=8, convolutions=2),
    tolerances={
        "float32": Tolerance(80.0, 2e-3, "summation order only: other libraries measure 100 dB and more"),
        "float16": Tolerance(
            50.0, 5e-2, "11-bit significands through up to 34 convolutions in a row: 73 dB and more measured"
        ),
        "bfloat16": Tolerance(
            40.0, 2e-1, "8-bit significands, of the picture that is added too: 55 dB and more measured"
        ),
    },
)
