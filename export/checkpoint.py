"""Weights in and out: safetensors with the generator's name, configuration and class names in the metadata.

Tensors are stored in float16 to halve what ships and become float32 again when they are loaded. Nothing here
unpickles code: a `.pth` is read by torch's restricted loader (`weights_only`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export import generators
from export.spec import Spec
from runtime.errors import InvalidInput

SHIPPED = Path(__file__).parent / "weights"
RANDOM = "random:"
COMES_WITH = "shipped:"


@dataclass(frozen=True)
class Checkpoint:
    """A generator with its weights. source: a file's name, or "random:SEED"; sha256: of the file, "" for random."""

    model: str
    spec: Spec
    config: Any
    module: nn.Module
    class_names: tuple[str, ...]
    source: str
    sha256: str


def save(path: Path, model: str, config: Any, module: nn.Module, class_names: tuple[str, ...] = ()) -> None:
    """Write the module's weights to `path`, floats as float16, by atomic rename."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    metadata = {"model": model, "config": json.dumps(asdict(config)), "class_names": json.dumps(class_names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    save_file(tensors, unfinished, metadata)
    unfinished.replace(path)


def load(model: str, source: str | None = None, overrides: Mapping[str, str] | None = None) -> Checkpoint:
    """The generator `model` with the weights of `source`, in eval mode, float32.

    source: a path (.safetensors of ours, or .pth with a state dict), "random:SEED", "shipped:NAME", or None for the
    shipped weights of the generator's own name.
    overrides: `--set key=value` pairs over the configuration (the file's own, or the defaults).
    Raises InvalidInput naming the option, the key or the tensor that does not fit.
    """
    spec = generators.get(model)
    overrides = overrides or {}
    if source is None:
        source = COMES_WITH + model
    if source.startswith(RANDOM):
        config = configure(spec.config(), overrides)
        return Checkpoint(model, spec, config, random_module(spec, config, source), (), source, "")
    path = locate(source)
    tensors, metadata = read(path)
    found = metadata.get("model", model)
    if found != model:
        raise InvalidInput("weights", f"{path.name} holds a {found!r} generator, expected {model!r}")
    stored = {key: str(value) for key, value in json.loads(metadata.get("config", "{}")).items()}
    config = configure(spec.config(), stored | dict(overrides))
    module = build(spec, config)
    load_strictly(module, tensors, path)
    class_names = tuple(json.loads(metadata.get("class_names", "[]")))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Checkpoint(model, spec, config, module.eval(), class_names, path.name, digest)


def locate(source: str) -> Path:
    """The file that a path or "shipped:NAME" means. Raises InvalidInput where there is none."""
    if source.startswith(COMES_WITH):
        path = SHIPPED / f"{source.removeprefix(COMES_WITH)}.safetensors"
        if not path.is_file():
            there = ", ".join(COMES_WITH + one.stem for one in sorted(SHIPPED.glob("*.safetensors")))
            raise InvalidInput(
                "weights", f"{source} does not ship; give a path, {RANDOM}SEED, or one of {there}"
            )
        return path
    path = Path(source)
    if not path.is_file():
        raise InvalidInput(
            "weights",
            f"no file at {path}; give a checkpoint, {COMES_WITH}NAME, or {RANDOM}SEED for random weights",
        )
    return path


def configure(base: Any, overrides: Mapping[str, str]) -> Any:
    """`base` with `overrides` applied; a value must parse as the type of the field it replaces."""
    known = {field.name: type(getattr(base, field.name)) for field in fields(base)}
    for key, value in overrides.items():
        if key not in known:
            raise InvalidInput("set", f"got {key!r}, expected one of {', '.join(known)}")
        try:
            known[key](value)
        except ValueError as error:
            raise InvalidInput("set", f"{key}: got {value!r}, expected {known[key].__name__}") from error
    return type(base)(**(asdict(base) | {key: known[key](value) for key, value in overrides.items()}))


def build(spec: Spec, config: Any) -> nn.Module:
    try:
        return spec.module(config)
    except ValueError as error:
        raise InvalidInput("set", str(error)) from error


def random_module(spec: Spec, config: Any, source: str) -> nn.Module:
    """The module as its initialisation leaves it, from the seed in "random:SEED"."""
    seed = source.removeprefix(RANDOM)
    if not seed.isdigit():
        raise InvalidInput("weights", f"got {source!r}, expected {RANDOM}SEED with a whole number")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return build(spec, config).eval()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors (floats as float32) and the metadata of a .safetensors or .pth file."""
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            tensors = load_file(path)
        else:
            tensors, metadata = torch.load(path, map_location="cpu", weights_only=True), {}
    except Exception as error:
        raise InvalidInput("weights", f"{path.name} cannot be read: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise InvalidInput("weights", f"{path.name}: expected a state dict of tensors, got something else")
    return {
        key: value.float() if value.is_floating_point() else value for key, value in tensors.items()
    }, metadata


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `module`; every parameter must be there with its shape, and nothing else."""
    wanted = {
        key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    given = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    problems = [f"missing {key}" for key in wanted.keys() - given.keys()]
    problems += [f"unexpected {key}" for key in given.keys() - wanted.keys()]
    problems += [
        f"{key}: got {tuple(given[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted.keys() & given.keys()
        if given[key].shape != wanted[key].shape
    ]
    if problems:
        listed = "; ".join(sorted(problems)[:5]) + (
            f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        )
        raise InvalidInput("weights", f"{path.name} does not fit the configuration (see --set): {listed}")
    module.load_state_dict(given, strict=False)
