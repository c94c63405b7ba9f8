"""A conditional GAN's generator of linear layers, for grey pictures of 28×28, as MNIST has them.

Mirza and Osindero 2014 (arXiv 1411.1784): the class's embedding joins the latent, linear layers with batch norm make
the pixels, tanh ends it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from export.families.spec import Signature, Spec, Tolerance
from runtime.tensors import TensorSpec


@dataclass(frozen=True)
class Config:
    """size: side of the picture in pixels. width: values after the first layer; each further one doubles them."""

    size: int = 28
    channels: int = 1
    latent_size: int = 64
    classes: int = 10
    width: int = 128
    layers: int = 3


class MLP(nn.Module):
    """[N, Z] float32, standard normal, and [N] int64 labels → [N, C, size, size] float32 in [-1, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.shape = (config.channels, config.size, config.size)
        self.embedding = nn.Embedding(config.classes, config.classes)
        layers: list[nn.Module] = []
        inputs, outputs = config.latent_size + config.classes, config.width
        for _ in range(config.layers):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.LeakyReLU(0.2)]
            inputs, outputs = outputs, 2 * outputs
        self.hidden = nn.Sequential(*layers)
        self.pixels = nn.Linear(inputs, config.channels * config.size**2)

    def forward(self, latent: Tensor, label: Tensor) -> Tensor:
        joined = torch.cat((latent, self.embedding(label)), dim=1)  # [N, Z + classes]
        return torch.tanh(self.pixels(self.hidden(joined))).unflatten(1, self.shape)


def signature(config: Config) -> Signature:
    latent = TensorSpec("latent", "float32", ("N", config.latent_size))
    label = TensorSpec("label", "int64", ("N",), (0, config.classes - 1))
    sample = TensorSpec("sample", "float32", ("N", config.channels, config.size, config.size), (-1.0, 1.0))
    return Signature((latent, label), (sample,), latent_size=config.latent_size, classes=config.classes)


SPEC = Spec(
    task="generate",
    config=Config,
    module=MLP,
    signature=signature,
    tiny=Config(latent_size=8, classes=3, width=16, layers=2),
    tolerances={
        "float32": Tolerance(80.0, 2e-3, "summation order, and batch norm folded into the weights"),
        "float16": Tolerance(50.0, 5e-2, "11-bit significands through four layers"),
        "bfloat16": Tolerance(36.0, 2.5e-1, "8-bit significands through four layers"),
    },
)
