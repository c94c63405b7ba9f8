"""Finds the state dicts in a file's content: opens nested dictionaries, and removes prefixes such as `module.` from names.

`identification` calls `candidates` and takes the first one whose tensor names it knows. Candidates come in order of
preference, EMA weights first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Keys that hold a state dict. EMA weights come first: they give better pictures.
WRAPPERS = (
    "params_ema", "params-ema", "state_dict_ema", "model_ema", "generator_ema", "netG_ema", "G_ema", "g_ema", "ema",
    "model_state_dict", "state_dict", "params", "model", "net", "generator", "netG", "net_g", "G", "g",
)  # fmt: skip
# Prefixes of the generator's tensors in a file that may hold other networks too; EMA weights first.
ROLES = ("generator_ema.", "netG_ema.", "G_ema.", "generator.", "netG.", "net_g.", "G.")
# Prefixes that all names have: DataParallel, torch.compile, Lightning and others add them.
AROUND = ("module.", "_orig_mod.", "model.", "net.", "network.")
# Tensors that averaging adds to those of the network.
COUNTERS = ("steps", "n_averaged", "step_counter")
DEPTH = 4


@dataclass(frozen=True)
class Candidate:
    """A state dict in the file.

    inside: the keys and prefixes that were removed, outermost first. notes: which parts of the file were used and ignored.
    """

    tensors: Mapping[str, Tensor]
    inside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def candidates(content: Mapping[Any, Any]) -> Iterator[Candidate]:
    """Every state dict in a file's content, with and without prefixes, the preferred one first."""
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
