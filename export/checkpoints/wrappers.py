"""What lies around a state dict: dictionaries in dictionaries, and prefixes on every name.

A file may allow several readings; they come in the order in which they are preferred, averaged weights first, and
the first in which a dialect is recognised counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Keys that a state dict is found under. The averages (EMA) come first: they are what gives the better pictures.
WRAPPERS = (
    "params_ema", "params-ema", "state_dict_ema", "model_ema", "generator_ema", "netG_ema", "G_ema", "g_ema", "ema",
    "model_state_dict", "state_dict", "params", "model", "net", "generator", "netG", "net_g", "G", "g",
)  # fmt: skip
# Prefixes of a generator's names beside which other networks may lie, and again averages first.
ROLES = ("generator_ema.", "netG_ema.", "G_ema.", "generator.", "netG.", "net_g.", "G.")
# Prefixes that wrap a whole network.
AROUND = ("module.", "_orig_mod.", "model.", "net.", "network.")
# What averaging adds beside the network that it wraps.
COUNTERS = ("steps", "n_averaged", "step_counter")
DEPTH = 4


@dataclass(frozen=True)
class Reading:
    """One way to read a file. inside: the keys and prefixes passed, outermost first; notes: what was left aside."""

    tensors: Mapping[str, Tensor]
    inside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def readings(content: Mapping[Any, Any]) -> Iterator[Reading]:
    """All the ways to read what a file holds, the preferred one first."""
    for found in _unwrapped(content, (), ()):
        yield from _peeled(found)


def _unwrapped(
    content: Mapping[Any, Any], inside: tuple[str, ...], notes: tuple[str, ...]
) -> Iterator[Reading]:
    there = [key for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key] is not content]
    for key in there if len(inside) < DEPTH else ():
        rest = [other for other in there if other != key]
        told = taken(key, rest) if rest or "ema" in key else ()
        yield from _unwrapped(content[key], (*inside, key), (*notes, *told))
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield Reading(tensors, inside, notes)


def _peeled(found: Reading) -> Iterator[Reading]:
    yield found
    if len(found.inside) >= 2 * DEPTH:
        return
    keys = found.tensors.keys()
    for prefix in ROLES:
        rest = Counter(key.split(".")[0] for key in keys if not key.startswith(prefix))
        if rest.total() < len(keys):
            yield from _peeled(_without(prefix, found, taken(prefix[:-1], rest) if rest else ()))
    for prefix in AROUND:
        if keys - set(COUNTERS) and all(key.startswith(prefix) for key in keys - set(COUNTERS)):
            yield from _peeled(_without(prefix, found, ()))


def taken(name: str, rest: Iterable[str]) -> tuple[str, ...]:
    return (f"{name} taken" + "".join(f", {other} left aside" for other in rest),)


def _without(prefix: str, found: Reading, notes: tuple[str, ...]) -> Reading:
    tensors = {
        key.removeprefix(prefix): tensor for key, tensor in found.tensors.items() if key.startswith(prefix)
    }
    return Reading(tensors, (*found.inside, prefix), found.notes + notes)
