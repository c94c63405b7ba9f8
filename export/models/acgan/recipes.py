"""ACGAN: the discriminator also names the class, and both players want it to be right.

Paper: Odena et al. 2016 (arXiv 1610.09585): six 3×3 convolutions with dropout, two heads, Adam with beta1 0.5. The
class loss is cross-entropy of logits; the discriminator learns it from real and from generated pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import data
from export.networks.discriminators import Judged, minibatch_layer, normalise
from export.training import losses
from export.training.adversarial import SampleOptions, SampleTrainer, known_labels
from export.training.machine import Machine
from export.training.recipe import Batch, Losses, Recipe, Source
from runtime.errors import InvalidInput

SHOWN = 8  # pictures of each class in a grid of samples


@dataclass(frozen=True)
class AcganOptions(SampleOptions):
    """dropout: after each layer of the discriminator. auxiliary: weight of the class loss."""

    discriminator_width: int = 16
    dropout: float = 0.5
    auxiliary: float = 1.0


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → Judged, with [N, classes] logits of the classes."""

    def __init__(self, config: Any, options: AcganOptions) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = config.channels
        for layer in range(6):
            outputs = options.discriminator_width * 2**layer
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=2 - layer % 2, padding=1, bias=layer == 0))
            if layer:
                layers.append(normalise(options.discriminator_norm, outputs))
            layers += [nn.LeakyReLU(0.2, inplace=True), nn.Dropout(options.dropout)]
            inputs = outputs
        self.main = nn.Sequential(*layers, nn.Flatten())
        seen = inputs * (config.size // 8) ** 2
        self.minibatch, features = minibatch_layer(seen, options.minibatch_kernels)
        self.source = nn.Linear(features, 1)
        self.category = nn.Linear(seen, config.classes)
        self.apply(initialise)

    def forward(self, image: Tensor) -> Judged:
        features = self.main(image)
        source = self.source(self.minibatch(features)).flatten()
        return Judged(source, features, self.category(features))


class AcganTrainer(SampleTrainer):
    """The auxiliary classifier's loss beside the adversarial one, for both players."""

    options = AcganOptions
    settings: AcganOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: AcganOptions, source: Source, machine: Machine
    ) -> None:
        found = self.read(config, options, source, machine)
        self.labels = checked_labels(found, config.classes)
        self.class_names = checked_names(source.class_names or found.class_names, config.classes)
        self.oppose(generator, Discriminator(config, options), options, machine)
        self.shown = torch.randn(SHOWN * config.classes, config.latent_size)

    def batch(self, number: int) -> Batch:
        random, chosen, latent = self.draw(number)
        asked = torch.randint(self.config.classes, (self.settings.batch,), generator=random)[self.rows]
        return Batch(self.shown_real(chosen, random), (latent, asked), self.labels[chosen])

    def discriminator_extras(self, batch: Batch, real: Judged, fake: Judged) -> Losses:
        on_real = losses.auxiliary_classifier(real.classes.float(), batch.labels)
        on_fake = losses.auxiliary_classifier(fake.classes.float(), batch.inputs[1])
        return {"discriminator_class": self.settings.auxiliary * (on_real + on_fake)}

    def generator_extras(self, batch: Batch, fake: Judged) -> Losses:
        on_fake = losses.auxiliary_classifier(fake.classes.float(), batch.inputs[1])
        return {"generator_class": self.settings.auxiliary * on_fake}

    def figures(self, batch: Batch, real: Judged, fake: Judged) -> Losses:
        return super().figures(batch, real, fake) | {
            "real_accuracy": (real.classes.argmax(1) == batch.labels).float().mean(),
            "fake_accuracy": (fake.classes.argmax(1) == batch.inputs[1]).float().mean(),
        }

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A row a class; the same latents each time, so that a run's pictures can be followed."""
        labels = torch.arange(self.config.classes).repeat_interleave(SHOWN)
        made = generator(self.shown.to(self.machine.device), labels.to(self.machine.device))
        return data.as_grid((made + 1).cpu() / 2, columns=SHOWN)


def checked_labels(found: data.Labelled, classes: int) -> Tensor:
    """The labels, [N] int64. Raises InvalidInput where they are not one of `classes`."""
    labels = known_labels(found)
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


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)


COMPACT = AcganOptions(steps=2500, batch=64, lr=3e-4, discriminator_width=8, dropout=0.3)
RECIPES = {
    "compact": Recipe(
        "32×32 on one CPU: 96 maps, 2,500 steps of 64 pictures, a quarter of an hour",
        AcganTrainer,
        COMPACT,
        {"size": 32, "width": 96},
    ),
    "paper": Recipe(
        "the paper's for CIFAR-10: 384 maps, batches of 100, Adam 2e-4 with beta1 0.5, dropout 0.5",
        AcganTrainer,
        replace(COMPACT, steps=50_000, batch=100, lr=2e-4, discriminator_width=16, dropout=0.5),
        {"size": 32, "channels": 3, "width": 384},
    ),
}
