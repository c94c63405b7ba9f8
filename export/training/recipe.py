"""What a recipe gives the loop. Axis letters: N batch, C channels, H and W pixels, S scale, Z latent values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Options:
    """What every recipe has; `--set key=value` replaces any of them.

    steps: generator updates in the whole run; batch: pictures in each.
    minutes: end after this much training even if steps are left, schedules included; 0 for no such end.
    ema_decay: of the averaged weights, which are the ones that are exported.
    log_every, sample_every, validate_every, checkpoint_every: in steps.
    """

    steps: int = 1000
    batch: int = 8
    minutes: float = 0.0
    ema_decay: float = 0.999
    log_every: int = 20
    sample_every: int = 500
    validate_every: int = 500
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Source:
    """Where the pictures come from. class_names: given by the user, else empty."""

    data: Path
    validation: Path | None = None
    class_names: tuple[str, ...] = ()


class Stateful(Protocol):
    """A module or an optimizer: whatever must survive a stop."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Trainer(ABC):
    """One recipe at work: its data, its losses, its optimizers. All randomness is torch's global generator."""

    options: ClassVar[type[Options]]
    generator: nn.Module
    class_names: tuple[str, ...] = ()

    @abstractmethod
    def __init__(self, generator: nn.Module, config: Any, options: Any, source: Source) -> None:
        """Read the data. Raises InvalidInput naming what does not fit."""

    @abstractmethod
    def step(self, progress: float) -> Mapping[str, Tensor]:
        """One update of every network, `progress` in [0, 1) of the run; the losses, detached scalars."""

    @abstractmethod
    def parts(self) -> Mapping[str, Stateful]:
        """By name, all that a resumed run must find as it was, the generator included."""

    @abstractmethod
    def inputs(self) -> tuple[Tensor, ...]:
        """A random batch of what the generator takes."""

    @abstractmethod
    def samples(self, generator: nn.Module) -> np.ndarray:
        """A picture to judge progress by, from `generator` in eval mode: [H, W, C] uint8."""

    def validate(self, generator: nn.Module) -> Mapping[str, float]:
        """Figures of quality, units in their names; none where there is nothing to measure against."""
        return {}


def channels_last(module: M) -> M:
    """`module` with its convolutions' weights laid out as CPUs and tensor cores like them."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module
