"""The generators of CycleGAN and pix2pix, which translate a picture of one kind into one of another, and their SPEC.

Papers: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks"
(arXiv 1703.10593); Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks" (arXiv 1611.07004).
The networks are in files of their own: resnet.py, unet.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from export.families.spec import Signature, Spec, Tolerance
from export.models.cyclegan import resnet, unet
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Config:
    """architecture: one of ARCHITECTURES. features: maps after the first layer. norm: instance, batch or picture (layers.py).

    blocks: residual blocks of "resnet"; the paper has 6 for pictures of 128 px and 9 from 256 px.
    downs: halvings of "unet", whose pictures are multiples of 2^downs px; the paper has 8, for pictures of 256 px.
    dropout: of "unet" while it trains; the paper has 0.5.
    """

    architecture: str = "resnet"
    features: int = 64
    blocks: int = 9
    norm: str = "instance"
    in_channels: int = 3
    out_channels: int = 3
    downs: int = 8
    dropout: float = 0.0


@dataclass(frozen=True)
class Architecture:
    """A generator's network. build: makes it. size_multiple, least_side_px: its signature's, for a configuration."""

    build: Callable[[Config], nn.Module]
    size_multiple: Callable[[Config], int]
    least_side_px: Callable[[Config], int]


def build_resnet(config: Config) -> nn.Module:
    return resnet.ResNet(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        features=config.features,
        blocks=config.blocks,
        norm=config.norm,
    )


def build_unet(config: Config) -> nn.Module:
    return unet.UNet(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        features=config.features,
        downs=config.downs,
        norm=config.norm,
        dropout=config.dropout,
    )


def unet_side(config: Config) -> int:
    return 2**config.downs


ARCHITECTURES: Mapping[str, Architecture] = {
    "resnet": Architecture(
        build_resnet, lambda config: resnet.SIZE_MULTIPLE, lambda config: resnet.LEAST_SIDE_PX
    ),
    "unet": Architecture(build_unet, unet_side, unet_side),
}


def architecture(config: Config) -> Architecture:
    """The network of a configuration. Raises ValueError if there is none of its name."""
    if config.architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture: got {config.architecture!r}, expected one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[config.architecture]


def build(config: Config) -> nn.Module:
    """The generator: [N, in, H, W] float32 in [-1, 1] → [N, out, H, W] in [-1, 1]. Raises ValueError."""
    return architecture(config).build(config)


def signature(config: Config) -> Signature:
    image = TensorSpec("image", "float32", ("N", config.in_channels, "H", "W"), (-1.0, 1.0))
    translated = TensorSpec("translated", "float32", ("N", config.out_channels, "H", "W"), (-1.0, 1.0))
    network = architecture(config)
    # Instance norm takes its statistics from the whole picture: a tile would come out in other colours.
    return Signature(
        (image,),
        (translated,),
        size_multiple=network.size_multiple(config),
        least_side_px=network.least_side_px(config),
        padding="reflect",
        tiled=False,
    )


SPEC = Spec(
    task="translate",
    config=Config,
    module=build,
    signature=signature,
    tiny=Config(features=4, blocks=1),
    tolerances={
        "float32": Tolerance(80.0, 2e-3, "summation order only"),
        "float16": Tolerance(
            45.0,
            1e-1,
            "11-bit significands; instance norm of flat maps enlarges rounding: trained nets measure 68-70 dB",
        ),
        "bfloat16": Tolerance(
            28.0,
            5e-1,
            "8-bit significands; instance norm of flat maps enlarges rounding: trained nets measure 51-57 dB",
        ),
    },
)
