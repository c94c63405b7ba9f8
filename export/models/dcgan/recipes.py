"""DCGAN's recipes, which `python -m export.training` finds in RECIPES: one for CPUs, the paper's, and WGAN-GP.

Paper: Radford et al. 2015 (arXiv 1511.06434), with the choices of pytorch/examples: binary cross-entropy, the
non-saturating loss for the generator, Adam 2e-4 with betas (0.5, 0.999), weights N(0, 0.02), pictures in [-1, 1].
In `paper` the discriminator is as wide as the generator, 128 maps, as in the paper's code (pytorch/examples: 64 and 64).
The shipped weights were trained before the discriminator had biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from export import data
from export.models.dcgan.discriminator import Discriminator
from export.networks.discriminators import DiscriminatorOutput
from export.training import losses
from export.training.adversarial import SampleOptions, SampleTrainer, known_labels
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Recipe, Source

SAMPLES = 64  # in a grid of samples


@dataclass(frozen=True)
class DcganOptions(SampleOptions):
    """balance: weight of the losses that make all classes of the data equally frequent; 0 for the paper's DCGAN.

    With it the discriminator also learns to classify real pictures, and the generator learns to draw pictures that each
    clearly show a class, and all classes equally often (losses.categorical). The generator still takes no label.
    """

    balance: float = 0.0


class DcganTrainer(SampleTrainer):
    """Trains a DCGAN. The data's labels are only used for `balance`."""

    settings: DcganOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: DcganOptions, source: Source, machine: Machine
    ) -> None:
        pictures = self.read(config, options, source, machine)
        self.labels = (
            known_labels(pictures) if options.balance else torch.zeros(len(self.images), dtype=torch.int64)
        )
        discriminator = Discriminator(
            size=config.size,
            channels=config.channels,
            classes=int(self.labels.max()) + 1 if options.balance else 0,
            width=options.discriminator_width,
            norm=options.discriminator_norm,
            minibatch_kernels=options.minibatch_kernels,
        )
        self.set_up(generator, discriminator, options, machine)
        self.sample_latents = torch.randn(SAMPLES, config.latent_size)

    def batch(self, number: int) -> Batch:
        random, chosen, latent = self.draw_batch(number)
        return Batch(self.real_pictures(chosen, random), (latent,), self.labels[chosen])

    def discriminator_extras(
        self, batch: Batch, real: DiscriminatorOutput, fake: DiscriminatorOutput
    ) -> LossTerms:
        if not self.settings.balance:
            return {}
        on_real = losses.auxiliary_classifier(real.classes.float(), batch.labels)
        return {"discriminator_class": self.settings.balance * on_real}

    def generator_extras(self, batch: Batch, fake: DiscriminatorOutput) -> LossTerms:
        if not self.settings.balance:
            return {}
        return {"generator_class": self.settings.balance * losses.categorical(fake.classes.float())}

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A grid of samples, drawn from the same latents each time, so that progress shows."""
        pictures = generator(self.sample_latents.to(self.machine.device))
        return data.as_grid((pictures + 1).cpu() / 2, columns=8)


RECIPES = {
    "compact": Recipe(
        "32×32 on one CPU: 32 maps, 10,000 steps of 64 pictures, half an hour",
        DcganTrainer,
        DcganOptions(steps=10_000, batch=64, discriminator_width=32),
        {"size": 32, "width": 32},
    ),
    "paper": Recipe(
        "the paper's: 64×64, 1024 to 128 maps in both networks, batches of 128, Adam 2e-4 with beta1 0.5",
        DcganTrainer,
        DcganOptions(steps=100_000, batch=128, discriminator_width=128),
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
