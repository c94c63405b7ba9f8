"""How the conditional MLP is trained: a discriminator of linear layers sees the picture and its class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import data
from export.networks.discriminators import DiscriminatorOutput
from export.training.adversarial import SampleOptions, SampleTrainer, known_labels
from export.training.machine import Machine
from export.training.recipe import Batch, Recipe, Source


@dataclass(frozen=True)
class MlpOptions(SampleOptions):
    """dropout: after the discriminator's first layer."""

    dropout: float = 0.3


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → DiscriminatorOutput, with [N, classes] logits of the classes."""

    def __init__(self, config: Any, options: MlpOptions) -> None:
        super().__init__()
        width = options.discriminator_width
        pixels = config.channels * config.size**2
        self.hidden = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, width), nn.LeakyReLU(0.2), nn.Dropout(options.dropout)
        )
        self.source, self.category = nn.Linear(width, 1), nn.Linear(width, config.classes)

    def forward(self, image: Tensor) -> DiscriminatorOutput:
        features = self.hidden(image)
        return DiscriminatorOutput(self.source(features).flatten(), features, self.category(features))


class MlpTrainer(SampleTrainer):
    settings: MlpOptions

    def __init__(
        self, generator: nn.Module, config: Any, options: MlpOptions, source: Source, machine: Machine
    ) -> None:
        pictures = self.read(config, options, source, machine)
        self.labels = known_labels(pictures)
        self.class_names = source.class_names or pictures.class_names
        self.set_up(generator, Discriminator(config, options), options, machine)
        self.sample_latents = torch.randn(config.classes, config.latent_size)

    def batch(self, number: int) -> Batch:
        random, chosen, latent = self.draw_batch(number)
        labels = self.labels[chosen]
        return Batch(self.real_pictures(chosen, random), (latent, labels), labels)

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        pictures = generator(self.sample_latents, torch.arange(self.config.classes))
        return data.as_grid((pictures + 1) / 2, columns=self.config.classes)


RECIPES = {
    "compact": Recipe(
        "28×28 on one CPU: 2,000 steps of 64 pictures",
        MlpTrainer,
        MlpOptions(steps=2000, batch=64, discriminator_norm="none"),
    )
}
