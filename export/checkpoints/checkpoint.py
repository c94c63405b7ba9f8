"""Weights in and out: safetensors with the generator's name, configuration and class names in the metadata.

Tensors are stored in float16 to halve what ships and become float32 again when they are loaded. Files of other
code bases are read by export/dialects/, which unpickles no code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export import families
from export.checkpoints import dialects
from export.checkpoints.dialects import Found
from export.checkpoints.reading import open_file
from export.families.spec import Spec
from runtime.errors import InvalidInput

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
RANDOM = "random:"
COMES_WITH = "shipped:"
TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Checkpoint:
    """A generator with its weights. source: a file's name, or "random:SEED"; sha256: of the file, "" for random.

    dialect: whose names its tensors had, "" for random. notes: what was taken and what left aside.
    """

    model: str
    spec: Spec
    config: Any
    module: nn.Module
    class_names: tuple[str, ...]
    source: str
    sha256: str
    dialect: str = ""
    notes: tuple[str, ...] = ()


def save(path: Path, model: str, config: Any, module: nn.Module, class_names: tuple[str, ...] = ()) -> None:
    """Write the module's weights to `path`, floats as float16, by atomic rename."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in module.state_dict().items()
        if not name.endswith(dialects.COUNTS)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    save_file(tensors, unfinished, metadata(model, config, class_names))
    unfinished.replace(path)


def metadata(model: str, config: Any, class_names: tuple[str, ...]) -> dict[str, str]:
    """What a file of ours says about itself."""
    return {"model": model, "config": json.dumps(asdict(config)), "class_names": json.dumps(class_names)}


def load(model: str, source: str | None = None, overrides: Mapping[str, str] | None = None) -> Checkpoint:
    """The generator `model` with the weights of `source`, in eval mode, float32.

    source: a path (.safetensors of ours, or a checkpoint in a dialect of export/dialects/), "random:SEED",
    "shipped:NAME", or None for the shipped weights of the generator's own name.
    overrides: `--set key=value` pairs, for what the file does not say; with random weights, over the defaults.
    Raises InvalidInput naming the option, the key or the tensor that does not fit.
    """
    spec = families.get(model)
    overrides = overrides or {}
    if source is None:
        source = COMES_WITH + model
    if source.startswith(RANDOM):
        config = configure(spec.config(), overrides)
        return Checkpoint(model, spec, config, random_module(spec, config, source), (), source, "")
    path = locate(source)
    found = dialects.understand(path)
    if not found.model and dialects.of(model):
        raise unknown(found)
    if found.model not in ("", model):
        raise InvalidInput("weights", f"{path.name} holds a {found.model!r} generator, expected {model!r}")
    config = settle(found, spec, overrides)
    module = build(spec, config)
    load_strictly(module, found.tensors, path)
    return Checkpoint(
        model,
        spec,
        config,
        module.eval(),
        found.class_names,
        path.name,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        found.dialect or dialects.OURS,
        found.notes,
    )


def unknown(found: Found) -> InvalidInput:
    listed = ", ".join(list(found.tensors)[: dialects.LISTED])
    return InvalidInput(
        "weights",
        f"{found.path.name} holds tensors of no generator known here: {listed} "
        f"({len(found.tensors)} in all); python -m export.build --list shows the generators",
    )


def settle(found: Found, spec: Spec, overrides: Mapping[str, str]) -> Any:
    """The configuration of what was found, with `overrides` for what the file leaves open.

    Raises InvalidInput where one contradicts the file, and where something is open still.
    """
    stored = {key: str(value) for key, value in found.config.items()}
    told, config = (configure(spec.config(), given) for given in (stored, stored | dict(overrides)))
    for key in overrides.keys() & found.config.keys():
        if getattr(config, key) != getattr(told, key):
            raise InvalidInput(
                "set",
                f"{key}: got {overrides[key]}, but {found.path.name} has {found.config[key]}; leave it out",
            )
    for question in found.questions:
        if overrides.get(question.key) not in question.options:
            raise InvalidInput("set", f"{question.key} is open in {found.path.name}: {question}")
    return config


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
    parsed: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in known:
            raise InvalidInput("set", f"got {key!r}, expected one of {', '.join(known)}")
        try:
            parsed[key] = TRUTH[value.lower()] if known[key] is bool else known[key](value)
        except (ValueError, KeyError) as error:
            expected = "true or false" if known[key] is bool else known[key].__name__
            raise InvalidInput("set", f"{key}: got {value!r}, expected {expected}") from error
    return type(base)(**(asdict(base) | parsed))


def build(spec: Spec, config: Any) -> nn.Module:
    try:
        return spec.module(config)
    except ValueError as error:
        raise InvalidInput("set", str(error)) from error
    except (
        RuntimeError,
        MemoryError,
        OverflowError,
        TypeError,
    ) as error:  # torch's words for what it cannot make
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput("set", f"this configuration cannot be made: {told}") from error


def outline(spec: Spec, config: Any) -> nn.Module:
    """The module without memory for its weights: what shapes it has. Raises InvalidInput as `build`."""
    with torch.device("meta"):
        return build(spec, config)


def random_module(spec: Spec, config: Any, source: str) -> nn.Module:
    """The module as its initialisation leaves it, from the seed in "random:SEED"."""
    seed = source.removeprefix(RANDOM)
    if not seed.isdigit():
        raise InvalidInput("weights", f"got {source!r}, expected {RANDOM}SEED with a whole number")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return build(spec, config).eval()


def read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors (floats as float32) of a file that holds nothing else, under its own names, and its metadata."""
    opened = open_file(path)
    if not all(isinstance(value, Tensor) for value in opened.content.values()):
        raise InvalidInput("weights", f"{path.name}: expected a state dict of tensors, got something else")
    return {
        key: value.float() if value.is_floating_point() else value for key, value in opened.content.items()
    }, opened.metadata


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `module`, in its dtypes; each parameter must be there with its shape, and nothing else."""
    check_fit(module, tensors, path)
    module.load_state_dict(dict(tensors), strict=False)  # batch norm's counts, which may be missing


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises InvalidInput naming the tensors that `module` lacks, that it has beside these, or of other shapes."""
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith(dialects.COUNTS)}
    given = {key: value for key, value in tensors.items() if not key.endswith(dialects.COUNTS)}
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
