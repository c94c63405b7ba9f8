"""ACGAN's recipes, which `python -m export.training` finds in RECIPES: both players also learn to get the class right.

Paper: Odena et al. 2016 (arXiv 1610.09585), the table for CIFAR-10; Adam with beta1 0.5. The class loss is the cross-entropy
of the discriminator's class logits; it is trained with it on real and on generated pictures.

As in the paper, there is no batch norm after the generator's linear layer, and the discriminator's biases start at 0. The
compact recipe has 4×4 kernels in the strided layers of both networks, which avoids the paper's grid. The shipped weights
were trained before these changes (with batch norm there, 5×5 and 3×3 kernels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import data
from export.models.acgan.discriminator import Discriminator
from export.networks.discriminators import DiscriminatorOutput
from export.training import losses
from export.training.adversarial import SampleOptions, SampleTrainer, known_labels
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Recipe, Source
from runtime.errors import InvalidInput

SAMPLES_A_CLASS = 8  # in a grid of samples


@dataclass(frozen=True)
class AcganOptions(SampleOptions):
    """dropout: probability, after each layer of the discriminator. auxiliary: weight of the class loss.

    activation_noise: standard deviation of the noise added to the activations of each layer of the discriminator; the
    paper tried 0, 0.1 and 0.2. discriminator_kernel: of its strided layers: 3 as in the paper, or 4 (see discriminator.py).
    """

    discriminator_width: int = 16
    discriminator_kernel: int = 4
    dropout: float = 0.5
    activation_noise: float = 0.0
    auxiliary: float = 1.0


class AcganTrainer(SampleTrainer):
    """Adds the class loss to both players' adversarial losses."""

    settings: AcganOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: AcganOptions, source: Source, machine: Machine
    ) -> None:
        pictures = self.read(config, options, source, machine)
        self.labels = checked_labels(pictures, config.classes)
        self.class_names = checked_names(source.class_names or pictures.class_names, config.classes)
        discriminator = Discriminator(
            size=config.size,
            channels=config.channels,
            classes=config.classes,
            width=options.discriminator_width,
            norm=options.discriminator_norm,
            kernel=options.discriminator_kernel,
            dropout=options.dropout,
            noise=options.activation_noise,
            minibatch_kernels=options.minibatch_kernels,
        )
        self.set_up(generator, discriminator, options, machine)
        self.sample_latents = torch.randn(SAMPLES_A_CLASS * config.classes, config.latent_size)

    def batch(self, number: int) -> Batch:
        random, chosen, latent = self.draw_batch(number)
        wanted = torch.randint(self.config.classes, (self.settings.batch,), generator=random)[self.rows]
        return Batch(self.real_pictures(chosen, random), (latent, wanted), self.labels[chosen])

    def discriminator_extras(
        self, batch: Batch, real: DiscriminatorOutput, fake: DiscriminatorOutput
    ) -> LossTerms:
        on_real = losses.auxiliary_classifier(real.classes.float(), batch.labels)
        on_fake = losses.auxiliary_classifier(fake.classes.float(), batch.inputs[1])
        return {"discriminator_class": self.settings.auxiliary * (on_real + on_fake)}

    def generator_extras(self, batch: Batch, fake: DiscriminatorOutput) -> LossTerms:
        on_fake = losses.auxiliary_classifier(fake.classes.float(), batch.inputs[1])
        return {"generator_class": self.settings.auxiliary * on_fake}

    def figures(self, batch: Batch, real: DiscriminatorOutput, fake: DiscriminatorOutput) -> LossTerms:
        return super().figures(batch, real, fake) | {
            "real_accuracy": (real.classes.argmax(1) == batch.labels).float().mean(),
            "fake_accuracy": (fake.classes.argmax(1) == batch.inputs[1]).float().mean(),
        }

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A grid with a row for each class, drawn from the same latents each time, so that progress shows."""
        labels = torch.arange(self.config.classes).repeat_interleave(SAMPLES_A_CLASS)
        pictures = generator(self.sample_latents.to(self.machine.device), labels.to(self.machine.device))
        return data.as_grid((pictures + 1).cpu() / 2, columns=SAMPLES_A_CLASS)


def checked_labels(pictures: data.Labelled, classes: int) -> Tensor:
    """The labels, [N] int64 from 0. Raises InvalidInput if there are none, or one is not below `classes`."""
    labels = known_labels(pictures)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InvalidInput(
            "data", f"labels run from {low} to {high}, expected 0 to {classes - 1}; see --set classes="
        )
    return labels


def checked_names(names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    if names and (len(names) != classes or len(set(names)) != classes):
        raise InvalidInput(
            "classes", f"got {len(set(names))} different names, expected {classes}, one a class"
        )
    return names


COMPACT = AcganOptions(steps=2500, batch=64, lr=3e-4, discriminator_width=8, dropout=0.3)
PAPER = AcganOptions(steps=50_000, batch=100, lr=2e-4, discriminator_kernel=3)
RECIPES = {
    "compact": Recipe(
        "32×32 on one CPU: 96 maps, 4×4 kernels, 2,500 steps of 64 pictures, a quarter of an hour",
        AcganTrainer,
        COMPACT,
        {"size": 32, "width": 96, "kernel": 4, "linear_norm": False},
    ),
    "paper": Recipe(
        "the paper's for CIFAR-10: 384 maps, 5×5 kernels, batches of 100, Adam 2e-4 with beta1 0.5, dropout 0.5",
        AcganTrainer,
        PAPER,
        {"size": 32, "channels": 3, "width": 384, "kernel": 5, "linear_norm": False},
    ),
}
