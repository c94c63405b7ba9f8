"""How SRResNet is trained: L1 between its output and the true picture, both in [-1, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from export import data
from export.training import losses
from export.training.adversarial import adam
from export.training.machine import Machine
from export.training.recipe import Batch, LossTerms, Recipe, Source, Stateful, Trainer, TrainingOptions

SAMPLE_CROPS = 4  # in a picture of samples


@dataclass(frozen=True)
class L1Options(TrainingOptions):
    """patch_px: side of the low-resolution crops."""

    patch_px: int = 24


class L1Trainer(Trainer):
    def __init__(
        self, generator: nn.Module, config: Any, options: L1Options, source: Source, machine: Machine
    ) -> None:
        self.settings, self.machine, self.generator = options, machine, generator
        self.seed, self.rows = source.seed, machine.rows(options.batch)
        self.crops = data.Crops(source.data, scale=config.scale, patch_px=options.patch_px)
        self.dataset = f"{len(self.crops.names)} pictures from {source.data}"
        self.parallel_generator = machine.parallel(generator)
        self.optimizer = adam(generator, options)

    def batch(self, number: int) -> Batch:
        """inputs: low [N, 3, H, W]; real: high [N, 3, S·H, S·W]; float32 in [-1, 1]."""
        random = data.generator(self.seed, number)
        low, high = self.crops.batch(random, self.settings.batch, part=self.rows)
        return Batch(high * 2 - 1, (low * 2 - 1,))

    def generator_step(self, batch: Batch) -> LossTerms:
        with self.machine.autocast():
            loss = losses.pixel(self.parallel_generator(*batch.inputs).float(), batch.real)
        self.machine.step(self.optimizer, loss)
        return {"l1": loss.detach()}

    def optimizers(self) -> Mapping[str, Any]:
        return {"optimizer": self.optimizer}

    def parts(self) -> Mapping[str, Stateful]:
        return {"generator": self.generator, "optimizer": self.optimizer}

    @torch.inference_mode()
    def samples(self, generator: nn.Module) -> np.ndarray:
        low, high = self.crops.batch(data.generator(self.seed + 1, 0), SAMPLE_CROPS)
        output = (generator(low * 2 - 1) + 1) / 2
        return data.as_grid(torch.stack((output, high), dim=1).flatten(0, 1), columns=2)


RECIPES = {
    "l1": Recipe("the first stage of the paper, with L1", L1Trainer, L1Options(steps=1000, batch=8)),
}
