"""DCGAN: a generator and a discriminator, each the other's mirror, that play against each other.

Paper: Radford et al. 2015 (arXiv 1511.06434), with the choices of pytorch/examples: binary cross-entropy, the
non-saturating loss for the generator, Adam 2e-4 with betas (0.5, 0.999), weights N(0, 0.02), pictures in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import data
from export.models.dcgan.generator import initialise
from export.networks.discriminators import Judged, minibatch_layer, normalise
from export.training import losses
from export.training.adversarial import SampleOptions, SampleTrainer, known_labels
from export.training.machine import Machine
from export.training.recipe import Batch, Losses, Recipe, Source

SHOWN = 64  # pictures in a grid of samples


@dataclass(frozen=True)
class DcganOptions(SampleOptions):
    """balance: weight of the losses that keep every class of the data among the samples; 0 for the paper's DCGAN.

    The discriminator then learns the real pictures' classes beside its own task, and the generator is to make pictures
    of one class each, and of all of them equally often (losses.categorical). It is told of no class.
    """

    balance: float = 0.0


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → Judged; with logits of `classes` classes, where there are any."""

    def __init__(self, size: int, channels: int, classes: int, options: DcganOptions) -> None:
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
        self.category = nn.Linear(width * 4 * 4, classes) if classes else None
        self.apply(initialise)
        nn.init.normal_(self.source.weight, 0.0, 0.02)

    def forward(self, image: Tensor) -> Judged:
        features = self.main(image)
        source = self.source(self.minibatch(features)).flatten()
        return (
            Judged(source, features)
            if self.category is None
            else Judged(source, features, self.category(features))
        )


class DcganTrainer(SampleTrainer):
    """Any labels of the data are left aside, unless the classes are to be balanced."""

    options = DcganOptions
    settings: DcganOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: DcganOptions, source: Source, machine: Machine
    ) -> None:
        found = self.read(config, options, source, machine)
        self.labels = (
            known_labels(found) if options.balance else torch.zeros(len(self.images), dtype=torch.int64)
        )
        classes = int(self.labels.max()) + 1 if options.balance else 0
        discriminator = Discriminator(config.size, config.channels, classes, options)
        self.oppose(generator, discriminator, options, machine)
        self.shown = torch.randn(SHOWN, config.latent_size)

    def batch(self, number: int) -> Batch:
        random, chosen, latent = self.draw(number)
        return Batch(self.shown_real(chosen, random), (latent,), self.labels[chosen])

    def discriminator_extras(self, batch: Batch, real: Judged, fake: Judged) -> Losses:
        if not self.settings.balance:
            return {}
        on_real = losses.auxiliary_classifier(real.classes.float(), batch.labels)
        return {"discriminator_class": self.settings.balance * on_real}

    def generator_extras(self, batch: Batch, fake: Judged) -> Losses:
        if not self.settings.balance:
            return {}
        return {"generator_class": self.settings.balance * losses.categorical(fake.classes.float())}

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """The same latents each time, so that a run's pictures can be followed."""
        return data.as_grid((generator(self.shown.to(self.machine.device)) + 1).cpu() / 2, columns=8)


RECIPES = {
    "compact": Recipe(
        "32×32 on one CPU: 32 maps, 10,000 steps of 64 pictures, half an hour",
        DcganTrainer,
        DcganOptions(steps=10_000, batch=64, discriminator_width=32),
        {"size": 32, "width": 32},
    ),
    "paper": Recipe(
        "the paper's: 64×64, 1024 to 128 maps, batches of 128, Adam 2e-4 with beta1 0.5",
        DcganTrainer,
        DcganOptions(steps=100_000, batch=128),
        {"size": 64, "width": 128},
    ),
    "wgan-gp": Recipe(
        "the compact networks as WGAN-GP: five critic steps, gradient penalty 10, Adam 1e-4 (0, 0.9)",
        DcganTrainer,
        DcganOptions(
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
