"""ACGAN's generator, which draws samples of a given class, and its SPEC.

Paper: Odena et al. 2016, "Conditional Image Synthesis with Auxiliary Classifier GANs" (arXiv 1610.09585). The latent is
multiplied by the class's embedding, a linear layer makes the first 4×4 maps, 5×5 stride-2 transposed convolutions with batch
norm double their side, and tanh ends it. The paper has no batch norm after the linear layer. `linear_norm` adds one; it is
on by default, because weights trained with it exist whose files were written before there was the option.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.families.spec import Signature, Spec, Tolerance
from export.networks.sizes import check_doubling
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Config:
    """size: side in pixels, a power of two from 32. width: maps of the first 4×4 layer, 384 in the paper.

    kernel: of the transposed convolutions: 5 as in the paper, or 4, which covers every pixel equally often and so
    leaves no grid (with 5×5, the output's variance by pixel parity is 1.67, 0.90, 0.91 and 0.52 at initialisation).
    linear_norm: batch norm after the linear layer; the paper has none.
    """

    size: int = 32
    channels: int = 3
    latent_size: int = 110
    classes: int = 10
    width: int = 384
    kernel: int = 5
    linear_norm: bool = True


class ACGAN(nn.Module):
    """[N, Z] float32, standard normal, and [N] int64 labels → [N, C, size, size] float32 in [-1, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        check_doubling(config.size, config.channels)
        self.embedding = nn.Embedding(config.classes, config.latent_size)
        self.width = config.width
        self.linear = nn.Linear(config.latent_size, config.width * 4 * 4)
        maps = config.width
        layers: list[nn.Module] = [nn.BatchNorm2d(maps)] if config.linear_norm else []
        layers.append(nn.ReLU(inplace=True))
        for _ in range(config.size.bit_length() - 4):
            narrower = max(maps // 2, 8)
            layers += [up(maps, narrower, config.kernel), nn.BatchNorm2d(narrower), nn.ReLU(inplace=True)]
            maps = narrower
        layers += [up(maps, config.channels, config.kernel), nn.Tanh()]
        self.main = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        joined = latent * self.embedding(label)  # [N, Z]
        return self.main(torch.unflatten(self.linear(joined), 1, (self.width, 4, 4)))


def up(inputs: int, outputs: int, kernel: int) -> nn.ConvTranspose2d:
    """A transposed convolution that doubles the side. Raises ValueError for a kernel that does not."""
    if kernel not in (4, 5):
        raise ValueError(f"kernel: got {kernel}, expected 4 or 5")
    padding, output_padding = (2, 1) if kernel == 5 else (1, 0)
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride=2, padding=padding, output_padding=output_padding
    )


def initialise(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02) for convolutions and the linear layer, from N(0, 1) for the embedding."""
    if isinstance(module, nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, 0.0, 1.0)


def signature(config: Config) -> Signature:
    latent = TensorSpec("latent", "float32", ("N", config.latent_size))
    label = TensorSpec("label", "int64", ("N",), (0, config.classes - 1))
    sample = TensorSpec("sample", "float32", ("N", config.channels, config.size, config.size), (-1.0, 1.0))
    return Signature(
        inputs=(latent, label), outputs=(sample,), latent_size=config.latent_size, classes=config.classes
    )


SPEC = Spec(
    task="generate",
    config=Config,
    module=ACGAN,
    signature=signature,
    tiny=Config(latent_size=8, classes=3, width=8),
    tolerances={
        "float32": Tolerance(80.0, 2e-3, "summation order, and batch norm folded into the weights"),
        "float16": Tolerance(
            50.0, 5e-2, "11-bit significands through five layers; tanh flattens what is left"
        ),
        "bfloat16": Tolerance(36.0, 2.5e-1, "8-bit significands through five layers"),
    },
)
