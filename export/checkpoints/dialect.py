"""What a dialect is: the names that one public code base gives to the tensors of a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Question:
    """A value of the configuration that a file leaves open. options: what it may be; because: why that is so."""

    key: str
    options: tuple[str, ...]
    because: str

    def __str__(self) -> str:
        return f"{self.because}; add {' or '.join(f'--set {self.key}={one}' for one in self.options)}"


@dataclass(frozen=True)
class Inferred:
    """What the shapes of a file's tensors say about the configuration, and what they leave open."""

    config: Mapping[str, Any]
    questions: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """One code base's names for a generator's tensors.

    told_by: regular expressions; the dialect is recognised where each matches a tensor's name in full.
    names: for the names in a file, which it may have only in part: all that should be there, as {theirs: ours}.
    theirs: the way back, for all of our names. infer: the configuration, from tensors under our names.
    under: the prefix that such files have, where it is what tells them from another dialect.
    target: what `python -m export.convert --to` calls it; "" where it is only read.
    wrapped: written files hold the state dict under a key, "params_ema" or "params".
    lacks: for a configuration, what of it the dialect cannot express; "" where it can.
    """

    name: str
    told_by: tuple[str, ...]
    names: Callable[[Iterable[str]], Mapping[str, str]]
    theirs: Callable[[Iterable[str]], Mapping[str, str]]
    infer: Callable[[Mapping[str, Tensor]], Inferred]
    under: tuple[str, ...] = field(default=())
    target: str = ""
    wrapped: bool = False
    lacks: Callable[[Any], str] = lambda config: ""
