"""Naming: the names that a public code base gives to a generator's tensors, as data. Each family's checkpoints.py lists some.

`identification` recognises a file by them and translates its tensors to our names; `export.convert` translates back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Assumption:
    """A setting that a file's tensors leave open, and the usual value, which is assumed.

    key, value: of the configuration. alternatives: values that `--set` may give instead. because: why it is open, in words.
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
    """The configuration as a file's tensor shapes determine it. assumptions: for settings that they do not determine."""

    config: Mapping[str, Any]
    assumptions: tuple[Assumption, ...] = ()


@dataclass(frozen=True)
class Naming:
    """One code base's names for a generator's tensors.

    name: the code base, in words. recognised_by: regular expressions; a file has these names if each expression matches
    the whole name of one of its tensors.
    to_ours: from the names in a file, some of which may be missing, to {their name: our name} for all that should be there.
    from_ours: from our names, all of them, to {our name: their name}. infer: the configuration from tensors under our names.
    under: prefixes, one of which such a file has around its names; () if they are not needed to recognise it.
    target: the name for `python -m export.convert --to`; "" if files in these names are only read.
    ignored: a regular expression: tensors whose whole name it matches are left out, as that code base does; "" for none.
    wrapped: whether written files hold the state dict under a key, "params_ema" or "params".
    lacks: what in a configuration this code base's network does not have, in words; "" if it has everything.
    """

    name: str
    recognised_by: tuple[str, ...]
    to_ours: Callable[[Iterable[str]], Mapping[str, str]]
    from_ours: Callable[[Iterable[str]], Mapping[str, str]]
    infer: Callable[[Mapping[str, Tensor]], Inferred]
    under: tuple[str, ...] = field(default=())
    target: str = ""
    ignored: str = ""
    wrapped: bool = False
    lacks: Callable[[Any], str] = lambda config: ""
