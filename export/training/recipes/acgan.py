"""ACGAN: the discriminator also names the class, and the generator must be right about it.

Paper: Odena et al. 2016 (arXiv 1610.09585): six 3×3 convolutions, batch norm, dropout 0.5, two heads. The
discriminator minimises the sum of the source loss and the class loss, on real and on drawn pictures; the generator
minimises the class loss and, in its non-saturating form, the source loss. Adam with betas (0.5, 0.999).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.training import data
from export.training.adversarial import AdversarialTrainer, believed, descend
from export.training.recipe import Options, Source
from runtime.errors import InvalidInput

SHOWN = 8  # samples of each class in a grid


@dataclass(frozen=True)
class AcganOptions(Options):
    """lr: of both networks; discriminator_width: maps after its first layer (the paper's 16)."""

    steps: int = 10000
    batch: int = 64
    lr: float = 2e-4
    discriminator_width: int = 16
    dropout: float = 0.5


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → [N] logits of being real, [N, classes] logits of the classes."""

    def __init__(self, config: Any, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = config.channels
        for layer in range(6):
            outputs = width * 2**layer
            layers.append(nn.Conv2d(inputs, outputs, 3, stride=2 - layer % 2, padding=1, bias=layer == 0))
            if layer:
                layers.append(nn.BatchNorm2d(outputs))
            layers += [nn.LeakyReLU(0.2, inplace=True), nn.Dropout(dropout)]
            inputs = outputs
        self.main = nn.Sequential(*layers, nn.Flatten())
        features = inputs * (config.size // 8) ** 2
        self.source = nn.Linear(features, 1)
        self.category = nn.Linear(features, config.classes)
        self.apply(initialise)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.main(image)
        return self.source(features).flatten(), self.category(features)


class AcganTrainer(AdversarialTrainer):
    """One update of the discriminator, one of the generator, on the same samples."""

    options = AcganOptions

    def __init__(self, generator: nn.Module, config: Any, options: AcganOptions, source: Source) -> None:
        self.config, self.settings = config, options
        archive = data.read_labelled(source.data, config.size, config.channels)
        self.images, self.labels = archive.images, checked_labels(archive, config.classes)
        self.class_names = checked_names(source.class_names or archive.class_names, config.classes)
        discriminator = Discriminator(config, options.discriminator_width, options.dropout)
        self.oppose(generator, discriminator, options.lr)
        self.shown = torch.randn(SHOWN * config.classes, config.latent_size)

    def step(self, progress: float) -> Mapping[str, Tensor]:
        chosen = torch.randint(len(self.images), (self.settings.batch,))
        real, real_labels = data.as_floats(self.images[chosen]) * 2 - 1, self.labels[chosen]
        latent, labels = self.inputs()
        fake = self.generator(latent, labels)  # [N, C, H, W] float32 in [-1, 1]
        real_source, real_classes = self.discriminator(real)
        fake_source, fake_classes = self.discriminator(fake.detach())
        source_loss = believed(real_source, True) + believed(fake_source, False)
        class_loss = F.cross_entropy(real_classes, real_labels) + F.cross_entropy(fake_classes, labels)
        descend(self.discriminator_optimizer, source_loss + class_loss)

        source, classes = self.discriminator(fake)
        generator_source_loss, generator_class_loss = believed(source, True), F.cross_entropy(classes, labels)
        descend(self.generator_optimizer, generator_source_loss + generator_class_loss)
        return {
            "discriminator_source": source_loss.detach(),
            "discriminator_class": class_loss.detach(),
            "generator_source": generator_source_loss.detach(),
            "generator_class": generator_class_loss.detach(),
            "real_accuracy": (real_classes.argmax(1) == real_labels).float().mean(),
            "fake_accuracy": (classes.argmax(1) == labels).float().mean(),
        }

    def inputs(self) -> tuple[Tensor, ...]:
        latent = torch.randn(self.settings.batch, self.config.latent_size)
        return latent, torch.randint(self.config.classes, (self.settings.batch,))

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A row a class; the same latents each time, so that a run's pictures can be followed."""
        labels = torch.arange(self.config.classes).repeat_interleave(SHOWN)
        return data.as_grid((generator(self.shown, labels) + 1) / 2, columns=SHOWN)


def checked_labels(archive: data.Labelled, classes: int) -> Tensor:
    """The archive's labels, [N] int64. Raises InvalidInput where they are not one of `classes`."""
    if archive.labels is None:
        raise InvalidInput(
            "data", "the archive has no `labels` (or `train_labels`), which this recipe learns from"
        )
    low, high = int(archive.labels.min()), int(archive.labels.max())
    if low < 0 or high >= classes:
        raise InvalidInput(
            "data", f"labels run from {low} to {high}, expected 0 to {classes - 1}; see --set classes="
        )
    return archive.labels


def checked_names(names: tuple[str, ...], classes: int) -> tuple[str, ...]:
    if names and (len(names) != classes or len(set(names)) != classes):
        raise InvalidInput(
            "classes", f"got {len(set(names))} different names, expected {classes}, one a class"
        )
    return names


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)


TRAINER = AcganTrainer
