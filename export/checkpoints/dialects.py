"""Checkpoints of other code bases, read under our names.

open the file (`reading`) → what lies around the state dict (`wrappers`) → whose names these are (`esrgan`, `dcgan`), or
what it is instead (`strangers`). A generator's dialects are in the file of its name here; without one, only our own
names are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export import families
from export.checkpoints.dialect import Dialect, Question
from export.checkpoints.reading import Opened, open_file
from export.checkpoints.unsupported import matches, refuse_contents, refuse_network
from export.checkpoints.wrappers import Reading, readings
from runtime.errors import InvalidInput

OURS = "ganforge"
LISTED = 5
# Counts of the batches that a batch norm has seen: no generator computes with them.
COUNTS = "num_batches_tracked"


@dataclass(frozen=True)
class Found:
    """What a checkpoint holds, under our names.

    model: the generator; "" where the names are of none that is known. tensors: in the file's own dtypes.
    config: what the file, or its tensors' shapes, say of the configuration; questions: what they leave open.
    inside: the keys and prefixes that the tensors were found under. notes: what the reader should know.
    """

    path: Path
    format: str
    dialect: str
    model: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    questions: tuple[Question, ...] = ()
    class_names: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Whether these are weights averaged over the training."""
        return any("ema" in name for name in self.inside)


def of(model: str) -> tuple[Dialect, ...]:
    """The dialects of the generator called `model`; none where it has no file here."""
    module = families.part(model, "checkpoints")
    return module.DIALECTS if module else ()


def understand(path: Path) -> Found:
    """What the checkpoint at `path` holds.

    Raises InvalidInput for a file that cannot be read or is incomplete, a Stranger for one that is known to be
    something else.
    """
    opened = open_file(path)
    if {"model", "config"} <= opened.metadata.keys():
        return told(own(opened))
    refuse_contents(path, opened.content)
    ways = list(readings(opened.content))
    if not ways:
        listed = ", ".join(str(key) for key in list(opened.content)[:LISTED])
        raise InvalidInput("weights", f"{path.name} holds no state dict of tensors; its keys are {listed}")
    for way in ways:
        for model, dialect in known():
            if spoken(dialect, way):
                return told(translated(opened, way, model, dialect))
    for way in ways:
        refuse_network(path, way.tensors)
    return told(Found(path, opened.format, "", "", ways[0].tensors, {}, inside=ways[0].inside))


def known() -> Iterator[tuple[str, Dialect]]:
    return ((model, dialect) for model in families.names() for dialect in of(model))


def spoken(dialect: Dialect, way: Reading) -> bool:
    """Whether these tensors have the dialect's names."""
    if dialect.under and not set(dialect.under) & set(way.inside):
        return False
    return len(matches(dialect.told_by, way.tensors)) == len(dialect.told_by)


def own(opened: Opened) -> Found:
    """A file that export/checkpoint.py wrote: it says itself what it is."""
    metadata = opened.metadata
    try:
        config, class_names = json.loads(metadata["config"]), json.loads(metadata.get("class_names", "[]"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput("weights", f"{opened.path.name}: its metadata is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(class_names, list):
        raise InvalidInput(
            "weights", f"{opened.path.name}: its metadata holds no configuration and class names of ours"
        )
    return Found(
        opened.path,
        opened.format,
        OURS,
        metadata["model"],
        opened.content,
        config,
        class_names=tuple(class_names),
    )


def translated(opened: Opened, way: Reading, model: str, dialect: Dialect) -> Found:
    """The tensors under our names. Raises InvalidInput where some are missing or there are others."""
    given = {key: tensor for key, tensor in way.tensors.items() if not key.endswith(COUNTS)}
    names = dialect.names(given)
    problems = [f"missing {key}" for key in names if key not in given]
    problems += [f"unexpected {key}" for key in given if key not in names]
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise InvalidInput(
            "weights",
            f"{opened.path.name} has names of {model} in the dialect {dialect.name}, "
            f"but is not whole: {'; '.join(problems[:LISTED])}{more}",
        )
    tensors = {ours: given[theirs] for theirs, ours in names.items()}
    inferred = dialect.infer(tensors)
    return Found(
        opened.path,
        opened.format,
        dialect.name,
        model,
        tensors,
        inferred.config,
        inferred.questions,
        inside=way.inside,
        notes=way.notes,
    )


def told(found: Found) -> Found:
    """With notes about the dialect and the numbers' precision in front. Raises InvalidInput for tensors of no use."""
    for name, tensor in found.tensors.items():
        if wrong := useless(tensor):
            raise InvalidInput("weights", f"{found.path.name}: {name} {wrong}")
    floats = sorted({dtype(tensor) for tensor in found.tensors.values() if tensor.is_floating_point()})
    notes = [f"dialect: {found.dialect}"] if found.dialect not in ("", OURS) else []
    if floats != ["float32"] and found.dialect != OURS:
        notes.append(f"stored in {', '.join(floats)}; a build starts from it as float32")
    return replace(found, notes=(*notes, *found.notes))


def useless(tensor: Tensor) -> str:
    """Why no generator can compute with it; "" where one can."""
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


def dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
