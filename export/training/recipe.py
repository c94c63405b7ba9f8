"""What a recipe declares, for the loop to train with: its options, its data, its losses and optimizers.

A family's recipes are `RECIPES` in export/models/<family>/recipes.py. loop.py drives them through `Trainer`.
Axis letters: N batch, C channels, H and W pixels, S scale, Z latent values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from export.training.machine import Machine
from runtime.errors import InvalidInput

UNLIMITED = math.inf
# The least and the largest value of each option, whichever recipe has it.
RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("steps", "batch", "patch_px", "workers", "discriminator_steps", "discriminator_width"),
        (1, UNLIMITED),
    ),
    **dict.fromkeys(
        ("log_every", "sample_every", "validate_every", "checkpoint_every", "minutes"), (0, UNLIMITED)
    ),
    **dict.fromkeys(("lr", "cache_gib", "minibatch_kernels", "balance", "activation_noise"), (0, UNLIMITED)),
    **dict.fromkeys(("beta1", "beta2", "warmup", "ema_decay", "dropout", "mirrored"), (0, 1)),
}


@dataclass(frozen=True)
class TrainingOptions:
    """The options that every recipe has; `--set key=value` replaces any of them.

    steps: generator updates in the whole run. batch: pictures in each, over all processes.
    minutes: end after this much training even if steps are left, schedules included; 0 for no such end.
    lr: Adam's peak learning rate, for every network; beta1, beta2: its decays.
    schedule: "constant", "cosine" down to 0, or "halving" at each share of the run in halve_at ("0.5,0.75").
    warmup: the share of the run in which the learning rate rises linearly.
    workers: threads that prepare batches in advance.
    ema_decay: of the averaged weights, which are the ones that are exported.
    log_every, sample_every, validate_every, checkpoint_every: in steps; 0 for the run's end only.
    """

    steps: int = 1000
    batch: int = 8
    minutes: float = 0.0
    lr: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: str = "constant"
    halve_at: str = ""
    warmup: float = 0.0
    ema_decay: float = 0.999
    log_every: int = 20
    sample_every: int = 500
    validate_every: int = 500
    checkpoint_every: int = 500
    workers: int = 1

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name, least)
            if not least <= value <= most:
                expected = f"{least} or more" if most == UNLIMITED else f"{least} to {most}"
                raise InvalidInput(name, f"got {value}, expected {expected}")


@dataclass(frozen=True)
class Source:
    """The paths and names from the command line that a recipe reads its data by.

    data: pictures to train on. validation: held-out pairs. class_names: empty unless the user names them. seed: of
    everything random. vgg19: the perceptual loss's weights. pretrained: the generator holds trained weights, which a
    recipe must not initialise again.
    """

    data: Path
    validation: Path | None = None
    class_names: tuple[str, ...] = ()
    seed: int = 0
    vgg19: Path | None = None
    pretrained: bool = False


@dataclass
class Batch:
    """The pictures and random numbers of one update; with several processes, the rows of this one.

    real: [N, C, H, W] float32 in the generator's output range. inputs: the generator's arguments, in their order.
    labels: [N] int64, of the real pictures; empty without. fake: the generator's output for `inputs`, with its graph
    where the generator's update goes on from it.
    """

    real: Tensor
    inputs: tuple[Tensor, ...]
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    fake: Tensor | None = None


class Stateful(Protocol):
    """A module or an optimizer: whatever a checkpoint must hold to resume from."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


LossTerms = dict[str, Tensor]  # scalars by name, as they are logged


class Trainer(ABC):
    """One recipe's data, losses and optimizers. The loop calls its methods and knows nothing else of a recipe.

    A batch depends on the run's seed and its number alone; what the networks draw themselves (dropout) comes from
    torch's random generator, which checkpoints hold. Updates call machine.parallel(network) in place of a network, inside
    machine.autocast(), and end in machine.step: so they work on many devices and in either precision.
    discriminator_steps: updates of the discriminator for each of the generator; 0 where there is none.
    dataset: what it trains on, in words: what, how many, of which sizes.
    skipped: files that could not be used, each with the reason.
    """

    discriminator_steps: int = 0
    generator: nn.Module
    machine: Machine
    class_names: tuple[str, ...] = ()
    dataset: str = ""
    skipped: tuple[str, ...] = ()

    @abstractmethod
    def __init__(
        self, generator: nn.Module, config: Any, options: Any, source: Source, machine: Machine
    ) -> None:
        """Read the data. Raises InvalidInput naming what does not fit."""

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """The run's batch of this number, the same whenever it is made. Called from several threads at once."""

    @property
    def batches_a_step(self) -> int:
        return max(self.discriminator_steps, 1)

    def discriminator_step(self, batch: Batch, *, generator_follows: bool) -> LossTerms:
        """Update the discriminator once; returns its losses, detached.

        generator_follows: the generator's update takes this batch, so `batch.fake` must keep the generator's graph.
        """
        raise NotImplementedError

    @abstractmethod
    def generator_step(self, batch: Batch) -> LossTerms:
        """Update the generator once; returns its losses, detached."""

    @abstractmethod
    def optimizers(self) -> Mapping[str, Any]:
        """The optimizers by name. The loop sets their learning rate."""

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """All that a checkpoint must hold, by name: networks, the generator included, and optimizers."""

    @abstractmethod
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture to judge progress by, from `generator` in eval mode: [H, W, C] uint8."""

    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        """Quality measured on held-out data, units in the names; empty where there is none."""
        return {}


NEEDED = "needed"


@dataclass(frozen=True)
class Recipe:
    """How to train a generator, as data.

    about: a line for `--list`. trainer: the class that takes the options. options: its defaults here.
    config: the generator's options where they differ from its defaults.
    start: the weights that training begins from where --start names none; NEEDED where it must; None for random ones.
    """

    about: str
    trainer: type[Trainer]
    options: TrainingOptions
    config: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None


def learning_rate(options: TrainingOptions, progress: float) -> float:
    """The learning rate at this share of the run, `progress` in [0, 1). Raises InvalidInput for an unknown schedule."""
    if progress < options.warmup:
        return options.lr * (progress + 1e-3 * options.warmup) / options.warmup
    if options.schedule == "cosine":
        after = (progress - options.warmup) / (1 - options.warmup)
        return options.lr * (0.5 + 0.5 * math.cos(math.pi * after))
    if options.schedule == "halving":
        return options.lr * 0.5 ** sum(progress >= share for share in halvings(options))
    if options.schedule != "constant":
        raise InvalidInput("schedule", f"got {options.schedule!r}, expected constant, cosine or halving")
    return options.lr


def halvings(options: TrainingOptions) -> list[float]:
    try:
        return [float(share) for share in options.halve_at.split(",") if share]
    except ValueError as error:
        raise InvalidInput(
            "halve_at", f"got {options.halve_at!r}, expected shares of the run like 0.5,0.75"
        ) from error
