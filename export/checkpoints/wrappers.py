"""The state dicts that a file may mean: dictionaries in dictionaries are opened, and prefixes taken off every name.

`identification` takes the first candidate whose tensor names it knows. They come in the order of preference, EMA
weights first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Keys under which a state dict lies. EMA weights come first: they give the better pictures.
WRAPPERS = (
    "params_ema", "params-ema", "state_dict_ema", "model_ema", "generator_ema", "netG_ema", "G_ema", "g_ema", "ema",
    "model_state_dict", "state_dict", "params", "model", "net", "generator", "netG", "net_g", "G", "g",
)  # fmt: skip
# Prefixes of a generator's names, where other networks may lie beside it; EMA weights first again.
ROLES = ("generator_ema.", "netG_ema.", "G_ema.", "generator.", "netG.", "net_g.", "G.")
# Prefixes that are on every name: DataParallel, torch.compile, Lightning and the like add them.
AROUND = ("module.", "_orig_mod.", "model.", "net.", "network.")
# What averaging adds beside the network that it wraps.
COUNTERS = ("steps", "n_averaged", "step_counter")
DEPTH = 4


@dataclass(frozen=True)
class Candidate:
    """A state dict that the file may mean.

    inside: the keys and prefixes taken off, outermost first. notes: what was used and what was ignored beside it.
    """

    tensors: Mapping[str, Tensor]
    inside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def candidates(content: Mapping[Any, Any]) -> Iterator[Candidate]:
    """Every state dict that a file's content may mean, the preferred one first."""
    for candidate in _without_wrappers(content, (), ()):
        yield from _without_prefixes(candidate)


def _without_wrappers(
    content: Mapping[Any, Any], inside: tuple[str, ...], notes: tuple[str, ...]
) -> Iterator[Candidate]:
    keys = [key for key in WRAPPERS if isinstance(content.get(key), Mapping) and content[key] is not content]
    for key in keys if len(inside) < DEPTH else ():
        others = [other for other in keys if other != key]
        note = _note(key, others) if others or "ema" in key else ()
        yield from _without_wrappers(content[key], (*inside, key), (*notes, *note))
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield Candidate(tensors, inside, notes)


def _without_prefixes(candidate: Candidate) -> Iterator[Candidate]:
    yield candidate
    if len(candidate.inside) >= 2 * DEPTH:
        return
    names = candidate.tensors.keys()
    for prefix in ROLES:
        others = Counter(name.split(".")[0] for name in names if not name.startswith(prefix))
        if others.total() < len(names):
            note = _note(prefix[:-1], others) if others else ()
            yield from _without_prefixes(_without(prefix, candidate, note))
    for prefix in AROUND:
        if names - set(COUNTERS) and all(name.startswith(prefix) for name in names - set(COUNTERS)):
            yield from _without_prefixes(_without(prefix, candidate, ()))


def _note(used: str, ignored: Iterable[str]) -> tuple[str, ...]:
    return (f"{used} used" + "".join(f", {name} ignored" for name in ignored),)


def _without(prefix: str, candidate: Candidate, notes: tuple[str, ...]) -> Candidate:
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in candidate.tensors.items()
        if name.startswith(prefix)
    }
    return Candidate(tensors, (*candidate.inside, prefix), candidate.notes + notes)
