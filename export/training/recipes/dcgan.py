"""DCGAN: a generator and a discriminator, each the other's mirror, that play against each other.

Paper: Radford et al. 2015 (arXiv 1511.06434), with the choices of pytorch/examples: binary cross-entropy, the
non-saturating loss for the generator, Adam 2e-4 with betas (0.5, 0.999), weights N(0, 0.02), pictures in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.generators.dcgan import initialise
from export.training import data
from export.training.adversarial import AdversarialTrainer, believed, descend
from export.training.recipe import Options, Source

SHOWN = 64  # pictures in a grid of samples


@dataclass(frozen=True)
class DcganOptions(Options):
    """lr: of both networks; discriminator_width: maps after its first layer (ndf)."""

    steps: int = 10000
    batch: int = 64
    lr: float = 2e-4
    discriminator_width: int = 64


class Discriminator(nn.Module):
    """[N, C, size, size] float32 in [-1, 1] → [N] logits, positive where it believes the picture."""

    def __init__(self, size: int, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for _ in range(size.bit_length() - 4):  # down to 4×4
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
            width *= 2
        self.main = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, bias=False))
        self.apply(initialise)

    def forward(self, image: Tensor) -> Tensor:
        return self.main(image).flatten()


class DcganTrainer(AdversarialTrainer):
    """One update of the discriminator, one of the generator, on the same samples."""

    options = DcganOptions

    def __init__(self, generator: nn.Module, config: Any, options: DcganOptions, source: Source) -> None:
        self.config, self.settings = config, options
        self.images = data.read_labelled(source.data, config.size, config.channels).images
        discriminator = Discriminator(config.size, config.channels, options.discriminator_width)
        self.oppose(generator, discriminator, options.lr)
        self.shown = torch.randn(SHOWN, config.latent_size)

    def step(self, progress: float) -> Mapping[str, Tensor]:
        chosen = torch.randint(len(self.images), (self.settings.batch,))
        real = data.as_floats(self.images[chosen]) * 2 - 1  # [N, C, H, W] float32 in [-1, 1]
        fake = self.generator(*self.inputs())
        on_real, on_fake = self.discriminator(real), self.discriminator(fake.detach())
        discriminator_loss = believed(on_real, True) + believed(on_fake, False)
        descend(self.discriminator_optimizer, discriminator_loss)

        generator_loss = believed(self.discriminator(fake), True)
        descend(self.generator_optimizer, generator_loss)
        return {
            "discriminator": discriminator_loss.detach(),
            "generator": generator_loss.detach(),
            "real_belief": on_real.detach().sigmoid().mean(),
            "fake_belief": on_fake.detach().sigmoid().mean(),
        }

    def inputs(self) -> tuple[Tensor, ...]:
        return (torch.randn(self.settings.batch, self.config.latent_size),)

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        """The same latents each time, so that a run's pictures can be followed."""
        return data.as_grid((generator(self.shown) + 1) / 2, columns=8)


TRAINER = DcganTrainer
