"""DCGAN's generator, which draws samples from latents by transposed convolutions with batch norm, and its SPEC.

Paper: Radford et al. 2015, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks" (arXiv 1511.06434). Parameter names and kernel sizes are those of pytorch/examples (`main.N.weight`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from export.families.spec import Signature, Spec, Tolerance
from export.networks.sizes import check_doubling
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Config:
    """size: side of a sample in pixels, a power of two from 32. width: maps before the last layer, pytorch/examples' ngf."""

    size: int = 64
    channels: int = 3
    latent_size: int = 100
    width: int = 64


class DCGAN(nn.Module):
    """[N, Z] float32, standard normal → [N, C, size, size] float32 in [-1, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        check_doubling(config.size, config.channels)
        doublings = config.size.bit_length() - 3  # from 4×4 up
        maps = config.width * 2 ** (doublings - 1)
        layers: list[nn.Module] = [*up(config.latent_size, maps, stride=1, padding=0)]
        for _ in range(doublings - 1):
            layers += up(maps, maps // 2, stride=2, padding=1)
            maps //= 2
        layers += [nn.ConvTranspose2d(maps, config.channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, latent: Tensor) -> Tensor:
        return self.main(latent[:, :, None, None])  # [N, Z, 1, 1] → [N, C, size, size]


def up(inputs: int, outputs: int, *, stride: int, padding: int) -> tuple[nn.Module, ...]:
    deconvolution = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
    return deconvolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def initialise(module: nn.Module) -> None:
    """Draw weights as the paper does: N(0, 0.02) for convolutions, N(1, 0.02) for batch norm."""
    if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def signature(config: Config) -> Signature:
    latent = TensorSpec("latent", "float32", ("N", config.latent_size))
    sample = TensorSpec("sample", "float32", ("N", config.channels, config.size, config.size), (-1.0, 1.0))
    return Signature(inputs=(latent,), outputs=(sample,), latent_size=config.latent_size)


SPEC = Spec(
    task="generate",
    config=Config,
    module=DCGAN,
    signature=signature,
    tiny=Config(size=32, latent_size=8, width=4),
    tolerances={
        "float32": Tolerance(80.0, 2e-3, "summation order, and batch norm folded into the weights"),
        "float16": Tolerance(
            50.0, 5e-2, "11-bit significands through six layers; tanh flattens what is left"
        ),
        "bfloat16": Tolerance(36.0, 2.5e-1, "8-bit significands through six layers"),
    },
)
