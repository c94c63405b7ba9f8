"""What recipes of two networks share: who holds the optimizers, how a step is taken, and the usual loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.training.recipe import Stateful, Trainer, channels_last


class AdversarialTrainer(Trainer):
    """A generator and its discriminator, each with an Adam of its own with the GAN papers' betas (0.5, 0.999)."""

    def oppose(self, generator: nn.Module, discriminator: nn.Module, lr: float) -> None:
        """To be called once, by the constructor of a recipe."""
        self.generator, self.discriminator = generator, channels_last(discriminator)
        self.generator_optimizer = adam(generator, lr)
        self.discriminator_optimizer = adam(discriminator, lr)

    def parts(self) -> Mapping[str, Stateful]:
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }


def adam(module: nn.Module, lr: float) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=lr, betas=(0.5, 0.999))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of `optimizer` down the gradient of `loss`, a scalar."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def believed(logits: Tensor, truth: bool) -> Tensor:
    """Binary cross-entropy of `logits` [N] with "these are real" being `truth`.

    A generator that minimises this for its own samples with `truth` True has the non-saturating loss of
    Goodfellow et al. 2014 (arXiv 1406.2661).
    """
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(truth)))
