"""Identifies a checkpoint file: which generator, under whose tensor names, with what configuration.

`identify(path)` opens the file, compares each state dict in it with the tensor names of every family
(`export/models/<name>/checkpoints.py`), and returns Contents: the tensors under our names. A family without that file can
only be read under our names. checkpoint.py, inspect and convert call it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export import families
from export.checkpoints.naming import Assumption, Naming
from export.checkpoints.reading import CheckpointFile, open_file
from export.checkpoints.unsupported import matching_names, refuse_network, refuse_pickle
from export.checkpoints.wrappers import Candidate, candidates
from runtime.errors import InvalidInput

OURS = "ganforge"
LISTED = 5  # how many names a message lists; the others are only counted
# How many batches a batch norm has seen: no generator computes with it.
COUNTS = "num_batches_tracked"


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    format: of the file, in words. naming: the code base whose tensor names the file has; OURS for a file that we wrote, ""
    if it is not known. model: the generator; "" if no generator has such tensor names.
    tensors: under our names, in the file's dtypes. config: the settings known from the metadata or the tensors' shapes.
    assumptions: the settings in `config` that are only assumed. inside: the keys and prefixes around the tensors.
    notes: what the user should know about how the file was read.
    """

    path: Path
    format: str
    naming: str
    model: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    assumptions: tuple[Assumption, ...] = ()
    class_names: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Whether these are EMA weights."""
        return any("ema" in name for name in self.inside)


def namings(model: str) -> tuple[Naming, ...]:
    """The tensor names under which the family `model` can be read, the preferred first; () if it lists none."""
    module = families.part(model, "checkpoints")
    return module.NAMINGS if module else ()


def all_namings() -> Iterator[tuple[str, Naming]]:
    """The namings of all families, each with the family's name."""
    return ((model, naming) for model in families.names() for naming in namings(model))


def identify(path: Path) -> Contents:
    """What the checkpoint at `path` holds.

    Raises InvalidInput for a file that cannot be read, is incomplete or has tensors that cannot be computed with (NaN,
    quantized), UnsupportedCheckpoint for one that is recognised as something else.
    """
    file = open_file(path)
    if {"model", "config"} <= file.metadata.keys():
        return _checked(_own(file))
    refuse_pickle(path, file.content)
    state_dicts = list(candidates(file.content))
    if not state_dicts:
        listed = ", ".join(str(key) for key in list(file.content)[:LISTED])
        raise InvalidInput("weights", f"{path.name} holds no state dict of tensors; its keys are {listed}")
    for candidate in state_dicts:
        if contents := _named(file, candidate):
            return _checked(contents)
    for candidate in state_dicts:
        refuse_network(path, candidate.tensors)
    first = state_dicts[0]
    return _checked(Contents(path, file.format, "", "", first.tensors, {}, inside=first.inside))


def named_model(path: Path, model: str | None = None) -> str:
    """The family whose weights `path` holds: `model` if it is given, otherwise as the file says.

    Raises InvalidInput if the file does not say it.
    """
    if model is not None:
        return model
    in_file = identify(path).model
    if not in_file:
        raise InvalidInput(
            "model", f"is missing, and {path.name} does not say which generator it holds; give --model NAME"
        )
    return in_file


def unknown_network(contents: Contents) -> InvalidInput:
    """The error to raise for a state dict whose tensor names belong to no generator."""
    listed = ", ".join(list(contents.tensors)[:LISTED])
    return InvalidInput(
        "weights",
        f"{contents.path.name} holds tensors of no generator known here: {listed} "
        f"({len(contents.tensors)} in all); python -m export.build --list shows the generators",
    )


def dtype(tensor: Tensor) -> str:
    """The name of a tensor's dtype, for instance "float16"."""
    return str(tensor.dtype).removeprefix("torch.")


def _named(file: CheckpointFile, candidate: Candidate) -> Contents | None:
    """The candidate under our names; None if it has the names of no generator.

    Two networks may have one's names: the first that fits is taken. If none fits, raises InvalidInput for the first of them.
    """
    refused = None
    for model, naming in all_namings():
        if _has_names(candidate, naming):
            try:
                return _translated(file, candidate, model, naming)
            except InvalidInput as error:
                refused = refused or error
    if refused:
        raise refused
    return None


def _has_names(candidate: Candidate, naming: Naming) -> bool:
    if naming.under and not set(naming.under) & set(candidate.inside):
        return False
    return len(matching_names(naming.recognised_by, candidate.tensors)) == len(naming.recognised_by)


def _own(file: CheckpointFile) -> Contents:
    """A file that `checkpoint.save` wrote, whose metadata says what it holds."""
    metadata = file.metadata
    try:
        config, class_names = json.loads(metadata["config"]), json.loads(metadata.get("class_names", "[]"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("weights", f"{file.path.name}: its metadata is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(class_names, list):
        raise InvalidInput(
            "weights",
            f"{file.path.name}: its metadata holds no configuration (a JSON object) and class names (a list), "
            "as ganforge writes them",
        )
    return Contents(
        file.path,
        file.format,
        OURS,
        metadata["model"],
        file.content,
        config,
        class_names=tuple(class_names),
    )


def _translated(file: CheckpointFile, candidate: Candidate, model: str, naming: Naming) -> Contents:
    """The candidate under our names. Raises InvalidInput if tensors are missing or unexpected."""
    ignored = [name for name in candidate.tensors if re.fullmatch(naming.ignored, name)]
    given = {
        name: tensor
        for name, tensor in candidate.tensors.items()
        if not name.endswith(COUNTS) and name not in ignored
    }
    ours = naming.to_ours(given)
    problems = [f"missing {name}" for name in ours if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in ours]
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise InvalidInput(
            "weights",
            f"{file.path.name} has the tensor names of {model} in {naming.name}, "
            f"but is incomplete: {'; '.join(problems[:LISTED])}{more}",
        )
    tensors = {ours[name]: given[name] for name in ours}
    inferred = naming.infer(tensors)
    return Contents(
        file.path,
        file.format,
        naming.name,
        model,
        tensors,
        inferred.config,
        inferred.assumptions,
        inside=candidate.inside,
        notes=(*candidate.notes, *left_out(ignored, naming)),
    )


def left_out(names: list[str], naming: Naming) -> tuple[str, ...]:
    """A sentence about the tensors `names`, which are left out; () if there are none."""
    if not names:
        return ()
    return (
        f"{len(names)} tensors left out, which {naming.name} does not use either: {names[0]} and the like",
    )


def _checked(contents: Contents) -> Contents:
    """`contents` with notes on tensor names and dtypes. Raises InvalidInput naming a tensor that cannot be computed with."""
    for name, tensor in contents.tensors.items():
        if reason := _unusable(tensor):
            raise InvalidInput("weights", f"{contents.path.name}: {name} {reason}")
    floats = sorted({dtype(tensor) for tensor in contents.tensors.values() if tensor.is_floating_point()})
    notes = [f"tensor names: {contents.naming}"] if contents.naming not in ("", OURS) else []
    if floats != ["float32"] and contents.naming != OURS:
        notes.append(f"stored in {', '.join(floats)}; a build starts from it as float32")
    return replace(contents, notes=(*notes, *contents.notes))


def _unusable(tensor: Tensor) -> str:
    """Why no generator can compute with `tensor`; "" if one can."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = "meta" if tensor.is_meta else "quantized" if tensor.is_quantized else str(tensor.layout)
        return f"is {kind}, expected plain numbers; save its dense values"
    if tensor.is_complex():
        return f"is {dtype(tensor)}, expected real numbers"
    if tensor.numel() > tensor.untyped_storage().nbytes() // tensor.element_size():
        return f"claims {tensor.numel()} values and holds fewer, expected all of them"
    if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
        return "holds NaN or infinity: its training had failed; take an earlier checkpoint"
    return ""
