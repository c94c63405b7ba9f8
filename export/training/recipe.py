"""The interface of recipes: Recipe is how to train a generator, as data; its Trainer has the data, losses and optimizers.

A family's recipes are `RECIPES` in export/models/<family>/recipes.py. command.py makes the Trainer, loop.py calls its methods.
Axis letters: N batch, C channels, H and W pixels, S scale, Z latent values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from export.training.machine import Machine
from runtime.errors import InvalidInput

UNLIMITED = math.inf
# Option → its least and largest value, for the options of all recipes.
RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("steps", "batch", "patch_px", "crop_px", "workers", "discriminator_steps", "discriminator_width"),
        (1, UNLIMITED),
    ),
    **dict.fromkeys(
        ("log_every", "sample_every", "validate_every", "checkpoint_every", "minutes"), (0, UNLIMITED)
    ),
    **dict.fromkeys(("style_px", "content", "style", "variation"), (0, UNLIMITED)),
    **dict.fromkeys(("crop_px", "discriminator_layers"), (1, UNLIMITED)),
    **dict.fromkeys(("load_px", "adversarial", "cycle", "identity", "pixel", "pool"), (0, UNLIMITED)),
    **dict.fromkeys(("lr", "cache_gib", "minibatch_kernels", "balance", "activation_noise"), (0, UNLIMITED)),
    **dict.fromkeys(("beta1", "beta2", "warmup", "ema_decay", "dropout", "mirrored"), (0, 1)),
}


@dataclass(frozen=True)
class TrainingOptions:
    """The options that every recipe has; `--set key=value` changes them.

    steps: generator updates in the whole run. batch: pictures in each, over all processes.
    minutes: the run ends after so many minutes even if steps are left, and schedules end with it; 0 for no such limit.
    lr: Adam's peak learning rate, for every network. beta1, beta2: its decays.
    schedule: one of SCHEDULES: "constant", "cosine" (down to 0), "linear" (constant for half of the run, then down to 0), or
    "halving" at each share of the run in halve_at ("0.5,0.75"), or "tenth" for a tenth of it at each.
    warmup: the share of the run in which the learning rate rises linearly.
    workers: threads that prepare batches in advance.
    ema_decay: decay of the averaged weights, which are exported.
    log_every, sample_every, validate_every, checkpoint_every: in steps; 0 for only at the end of the run.
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
    """What a recipe needs from the command line to read its data.

    data: pictures to train on. validation: held-out pairs. class_names: as the user gave them, or (). seed: of everything
    random. vgg19: the file of the perceptual loss's weights; None to download it. style: the picture whose style is learned;
    None for recipes that learn none. pretrained: whether the generator has trained weights, which the recipe must not
    initialise again.
    """

    data: Path
    validation: Path | None = None
    class_names: tuple[str, ...] = ()
    seed: int = 0
    vgg19: Path | None = None
    style: Path | None = None
    pretrained: bool = False


@dataclass
class Batch:
    """The pictures and inputs of one update; with several processes, the rows of this process.

    real: [N, C, H, W] float32 in the generator's output range. inputs: the generator's arguments, in order. labels: of the
    real pictures, [N] int64; empty if there are none. fake: the generator's output for `inputs`, set by the
    discriminator's step; with its autograd graph if the generator's update uses it.
    """

    real: Tensor
    inputs: tuple[Tensor, ...]
    labels: Tensor = field(default_factory=lambda: torch.empty(0))
    fake: Tensor | None = None


class Stateful(Protocol):
    """A module or an optimizer, whose state a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


LossTerms = dict[str, Tensor]  # scalars by name, as they are logged


class Trainer(ABC):
    """One recipe's data, losses and optimizers. The loop calls its methods and knows nothing else of a recipe.

    A batch depends only on the run's seed and on its number; what the networks draw (dropout) comes from torch's random
    generator, whose state checkpoints hold. To work on many devices and in either precision, updates call
    machine.parallel(network) instead of the network, inside machine.autocast(), and end with machine.step.
    discriminator_steps: updates of the discriminator for each update of the generator; 0 if there is no discriminator.
    dataset: what it trains on, in words: what, how many, which sizes.
    skipped: the files that could not be used, each with the reason.
    exports: what the run leaves as files of weights: a name for the end of the file's name → the submodule of the generator
    that it holds. "" is no addition to the name, and the generator itself. Several need `generator` to be a module of them.
    """

    exports: Mapping[str, str] = MappingProxyType({"": ""})
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
        """Read the data and make the optimizers. Raises InvalidInput naming what cannot work."""

    @abstractmethod
    def batch(self, number: int) -> Batch:
        """The run's batch `number`, always the same. Called from several threads at once."""

    @property
    def batches_a_step(self) -> int:
        return max(self.discriminator_steps, 1)

    def discriminator_step(self, batch: Batch, *, generator_follows: bool) -> LossTerms:
        """Update the discriminator once. Returns its losses, detached.

        generator_follows: whether the generator's update uses this batch, so that `batch.fake` needs its autograd graph.
        """
        raise NotImplementedError

    @abstractmethod
    def generator_step(self, batch: Batch) -> LossTerms:
        """Update the generator once. Returns its losses, detached."""

    @abstractmethod
    def optimizers(self) -> Mapping[str, Any]:
        """The optimizers by name. The loop sets their learning rate."""

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """All that a checkpoint must hold, by name: networks, the generator included, and optimizers."""

    @abstractmethod
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture that shows progress, drawn with `generator` in eval mode: [H, W, C] uint8."""

    def preview(self) -> np.ndarray | None:
        """A picture of what the generator is given, for a rehearsal: [H, W, C] uint8; None if the recipe has nothing to show."""
        return None

    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        """Figures measured on held-out data, with units in their names; {} if there is no such data."""
        return {}


NEEDED = "needed"


@dataclass(frozen=True)
class Recipe:
    """How to train a generator, as data.

    about: a line for `--list`. trainer: the class that trains. options: this recipe's values.
    config: the settings of the generator that differ from its defaults.
    start: the weights to start from without --start; None for random ones; NEEDED if --start must be given.
    """

    about: str
    trainer: type[Trainer]
    options: TrainingOptions
    config: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None


def learning_rate(options: TrainingOptions, progress: float) -> float:
    """The learning rate when the share `progress`, in [0, 1), of the run is done. Raises InvalidInput for an unknown schedule."""
    if options.schedule not in SCHEDULES:
        raise InvalidInput("schedule", f"got {options.schedule!r}, expected one of {', '.join(SCHEDULES)}")
    if progress < options.warmup:
        return options.lr * (progress + 1e-3 * options.warmup) / options.warmup
    return options.lr * SCHEDULES[options.schedule](options, progress)


def cosine(options: TrainingOptions, progress: float) -> float:
    after = (progress - options.warmup) / (1 - options.warmup)
    return 0.5 + 0.5 * math.cos(math.pi * after)


def halving(options: TrainingOptions, progress: float) -> float:
    return 0.5 ** sum(progress >= share for share in halvings(options))


def tenth(options: TrainingOptions, progress: float) -> float:
    return 0.1 ** sum(progress >= share for share in halvings(options))


def linear(options: TrainingOptions, progress: float) -> float:
    """As in CycleGAN (Zhu et al. 2017): constant in the first half of the run, then falling to 0."""
    return min(1.0, 2 - 2 * progress)


# Name → the share of the peak learning rate after the warm-up, when the share `progress` of the run is done.
SCHEDULES: Mapping[str, Callable[[TrainingOptions, float], float]] = {
    "constant": lambda options, progress: 1.0,
    "cosine": cosine,
    "halving": halving,
    "tenth": tenth,
    "linear": linear,
}


def halvings(options: TrainingOptions) -> list[float]:
    try:
        return [float(share) for share in options.halve_at.split(",") if share]
    except ValueError as error:
        raise InvalidInput(
            "halve_at", f"got {options.halve_at!r}, expected shares of the run like 0.5,0.75"
        ) from error
