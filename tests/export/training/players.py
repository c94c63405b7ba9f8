"""A linear generator and a linear discriminator, whose losses and gradients tests can compute by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import data
from export.networks.discriminators import DiscriminatorOutput
from export.training.adversarial import AdversarialOptions, AdversarialTrainer
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms


class LinearGenerator(nn.Module):
    """[N, 3] → [N, 1, 1, 2]. grad_enabled: of every call, whether it recorded a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2, bias=False)
        self.grad_enabled: list[bool] = []

    def forward(self, latent: Tensor) -> Tensor:
        self.grad_enabled.append(torch.is_grad_enabled())
        return self.linear(latent)[:, None, None]


class LinearDiscriminator(nn.Module):
    """[N, 1, 1, 2] → logits with the gradient `linear.weight` everywhere; the features are the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, pictures: Tensor) -> DiscriminatorOutput:
        features = pictures.flatten(1)
        return DiscriminatorOutput(self.linear(features).flatten(), features)


class Players(AdversarialTrainer):
    """Both, on random pictures. extras: a further loss of the generator, weighted."""

    def __init__(self, *, extras: float = 0.0, **options: Any) -> None:
        torch.manual_seed(0)
        self.extras = extras
        without_norm: dict[str, Any] = {"discriminator_norm": "none", "batch": 4} | options
        self.set_up(
            LinearGenerator(), LinearDiscriminator(), AdversarialOptions(**without_norm), Machine("cpu")
        )

    def batch(self, number: int) -> Batch:
        random = data.generator(0, number)
        return Batch(torch.randn(4, 1, 1, 2, generator=random), (torch.randn(4, 3, generator=random),))

    def generator_extras(self, batch: Batch, fake: DiscriminatorOutput) -> LossTerms:
        assert batch.fake is not None
        return {"size": self.extras * batch.fake.square().mean()} if self.extras else {}

    def samples(self, generator: nn.Module) -> np.ndarray:
        return np.zeros((1, 1, 3), np.uint8)
