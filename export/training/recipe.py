"""What a recipe gives the loop. Axis letters: N batch, C channels, H and W pixels, S scale, Z latent values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from export.training.machine import Machine
from runtime.errors import InvalidInput

MANY = math.inf
# What an option may be, whichever recipe has it.
RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("steps", "batch", "patch_px", "workers", "discriminator_steps", "discriminator_width"), (1, MANY)
    ),
    **dict.fromkeys(
        ("log_every", "sample_every", "validate_every", "checkpoint_every", "minutes"), (0, MANY)
    ),
    **dict.fromkeys(("lr", "cache_gib", "minibatch_kernels", "balance"), (0, MANY)),
    **dict.fromkeys(("beta1", "beta2", "warmup", "ema_decay", "dropout", "mirrored"), (0, 1)),
}


@dataclass(frozen=True)
class Options:
    """What every recipe has; `--set key=value` replaces any of them.

    steps: generator updates in the whole run. batch: pictures in each, over all processes.
    minutes: end after this much training even if steps are left, schedules included; 0 for no such end.
    lr: the peak learning rate of Adam, of every network; beta1, beta2: its decays.
    schedule: "constant", "cosine" down to 0, or "halving" at each share of the run in halve_at ("0.5,0.75").
    warmup: the share of the run in which the learning rate rises in a line.
    workers: threads that make batches ahead.
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
                wanted = f"{least} or more" if most == MANY else f"{least} to {most}"
                raise InvalidInput(name, f"got {value}, expected {wanted}")


@dataclass(frozen=True)
class Source:
    """Where the pictures come from, and what else the command line names.

    class_names: given by the user, else empty. seed: of everything random. vgg19: a file of perceptual features.
    started: whether the generator comes from weights, which its recipe must then leave as they are.
    """

    data: Path
    validation: Path | None = None
    class_names: tuple[str, ...] = ()
    seed: int = 0
    vgg19: Path | None = None
    started: bool = False


@dataclass
class Batch:
    """One step's pictures and random numbers; the rows of this process.

    real: [N, C, H, W] float32 in the generator's output range. inputs: what the generator takes, in its order.
    labels: [N] int64, of the real pictures; empty without. fake: what the generator made of `inputs`, with its graph.
    """

    real: Tensor
    inputs: tuple[Tensor, ...]
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    fake: Tensor | None = None


class Stateful(Protocol):
    """A module or an optimizer: whatever must survive a stop."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


Losses = dict[str, Tensor]


class Trainer(ABC):
    """One recipe at work: its data, its losses, its optimizers.

    What a batch holds depends on its number alone; what the networks draw themselves (dropout) is torch's generator.
    discriminator_steps: updates of the discriminator for each of the generator; 0 where there is none.
    skipped: files that could not be used, each with the reason.
    """

    options: ClassVar[type[Options]]
    discriminator_steps: int = 0
    generator: nn.Module
    machine: Machine
    class_names: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @abstractmethod
    def __init__(
        self, generator: nn.Module, config: Any, options: Any, source: Source, machine: Machine
    ) -> None:
        """Read the data. Raises InvalidInput naming what does not fit."""

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """The run's batch of this number, the same whenever it is made. Called from a thread of its own."""

    @property
    def batches_a_step(self) -> int:
        return max(self.discriminator_steps, 1)

    def discriminator_step(self, batch: Batch) -> Losses:
        """One update of the discriminator; its losses, detached scalars."""
        raise NotImplementedError

    @abstractmethod
    def generator_step(self, batch: Batch) -> Losses:
        """One update of the generator; its losses, detached scalars."""

    @abstractmethod
    def optimizers(self) -> Mapping[str, Any]:
        """By name, the optimizers, whose learning rate the loop sets."""

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """By name, all that a resumed run must find as it was, the generator included."""

    @abstractmethod
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture to judge progress by, from `generator` in eval mode: [H, W, C] uint8."""

    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        """Figures of quality, units in their names; none where there is nothing to measure against."""
        return {}


NEEDED = "needed"


@dataclass(frozen=True)
class Recipe:
    """A way to train a generator, as data.

    about: a line for `--list`. trainer: who reads the options. options: its defaults here.
    config: the generator's options where they differ from the file's own defaults.
    start: the weights that training begins from where --start names none; NEEDED where it must; None for random ones.
    """

    about: str
    trainer: type[Trainer]
    options: Options
    config: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None


def learning_rate(options: Options, progress: float) -> float:
    """The learning rate at this share of the run, `progress` in [0, 1)."""
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


def halvings(options: Options) -> list[float]:
    try:
        return [float(share) for share in options.halve_at.split(",") if share]
    except ValueError as error:
        raise InvalidInput(
            "halve_at", f"got {options.halve_at!r}, expected shares of the run like 0.5,0.75"
        ) from error
