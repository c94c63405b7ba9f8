"""DCGAN: a generator and a discriminator, each the other's mirror, that play against each other.

Paper: Radford et al. 2015 (arXiv 1511.06434), with the choices of pytorch/examples: binary cross-entropy, the
non-saturating loss for the generator, Adam 2e-4 with betas (0.5, 0.999), weights N(0, 0.02), pictures in [-1, 1].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.generators.dcgan import initialise
from export.training import data
from export.training.adversarial import SampleOptions, SampleTrainer
from export.training.discriminators import Judged, minibatch_layer, normalise
from export.training.machine import Machine
from export.training.recipe import Batch, Recipe, Source

SHOWN = 64  # pictures in a grid of samples


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → Judged."""

    def __init__(self, size: int, channels: int, options: SampleOptions) -> None:
        super().__init__()
        width = options.discriminator_width
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for _ in range(size.bit_length() - 4):  # down to 4×4
            layers.append(nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False))
            width *= 2
            layers += [normalise(options.discriminator_norm, width), nn.LeakyReLU(0.2, inplace=True)]
        self.main = nn.Sequential(*layers, nn.Flatten())
        self.minibatch, features = minibatch_layer(width * 4 * 4, options.minibatch_kernels)
        self.source = nn.Linear(features, 1, bias=False)  # the paper's 4×4 convolution, on 4×4 maps
        self.apply(initialise)
        nn.init.normal_(self.source.weight, 0.0, 0.02)

    def forward(self, image: Tensor) -> Judged:
        features = self.main(image)
        return Judged(self.source(self.minibatch(features)).flatten(), features)


class DcganTrainer(SampleTrainer):
    """Any labels of the data are left aside."""

    options = SampleOptions
    settings: SampleOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: SampleOptions, source: Source, machine: Machine
    ) -> None:
        self.read(config, options, source, machine)
        self.oppose(generator, Discriminator(config.size, config.channels, options), options, machine)
        self.shown = torch.randn(SHOWN, config.latent_size)

    def batch(self, number: int) -> Batch:
        random, chosen, latent = self.draw(number)
        return Batch(self.shown_real(chosen, random), (latent,))

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """The same latents each time, so that a run's pictures can be followed."""
        return data.as_grid((generator(self.shown.to(self.machine.device)) + 1).cpu() / 2, columns=8)


RECIPES = {
    "compact": Recipe(
        "32×32 on one CPU: 32 maps, 10,000 steps of 64 pictures, half an hour",
        DcganTrainer,
        SampleOptions(steps=10_000, batch=64, discriminator_width=32),
        {"size": 32, "width": 32},
    ),
    "paper": Recipe(
        "the paper's: 64×64, 1024 to 128 maps, batches of 128, Adam 2e-4 with beta1 0.5",
        DcganTrainer,
        SampleOptions(steps=100_000, batch=128),
        {"size": 64, "width": 128},
    ),
    "wgan-gp": Recipe(
        "the compact networks as WGAN-GP: five critic steps, gradient penalty 10, Adam 1e-4 (0, 0.9)",
        DcganTrainer,
        SampleOptions(
            steps=10_000,
            batch=64,
            lr=1e-4,
            beta1=0.0,
            beta2=0.9,
            objective="wgan-gp",
            discriminator_steps=5,
            discriminator_width=32,
            discriminator_norm="none",
        ),
        {"size": 32, "width": 32},
    ),
}
