"""The names that a public code base gives to a generator's tensors, as data: a family's `checkpoints.py` lists them.

`identification` recognises a file by them and translates its tensors to our names; `export.convert` translates back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Assumption:
    """A setting that a file's tensors leave open, and the usual value that is taken for it.

    key, value: of the configuration. alternatives: what `--set` may say instead. because: for people, why it is open.
    """

    key: str
    value: str
    alternatives: tuple[str, ...]
    because: str

    def __str__(self) -> str:
        instead = " or ".join(f"--set {self.key}={value}" for value in self.alternatives)
        return f"{self.because}: taken as {self.key}={self.value}; if that is wrong, add {instead}"


@dataclass(frozen=True)
class Inferred:
    """What the shapes of a file's tensors say about the configuration. assumptions: on what they do not decide."""

    config: Mapping[str, Any]
    assumptions: tuple[Assumption, ...] = ()


@dataclass(frozen=True)
class Naming:
    """One code base's names for a generator's tensors.

    name: the code base, for people. recognised_by: regular expressions; a file has these names where each expression
    matches the name of one of its tensors in full.
    to_ours: for the names in a file, some of which may be missing: all that should be there, as {theirs: ours}.
    from_ours: the other way round, for all of our names. infer: the configuration, from tensors under our names.
    under: the prefix that such files have, where only the prefix tells them from another code base's.
    target: what `python -m export.convert --to` calls it; "" where it is only read.
    wrapped: written files hold the state dict under a key, "params_ema" or "params".
    lacks: for a configuration, what of it this code base's network cannot be; "" where it can be all of it.
    """

    name: str
    recognised_by: tuple[str, ...]
    to_ours: Callable[[Iterable[str]], Mapping[str, str]]
    from_ours: Callable[[Iterable[str]], Mapping[str, str]]
    infer: Callable[[Mapping[str, Tensor]], Inferred]
    under: tuple[str, ...] = field(default=())
    target: str = ""
    wrapped: bool = False
    lacks: Callable[[Any], str] = lambda config: ""
