"""Loads a generator with its weights (`load`) and saves them to a safetensors file (`save`).

A file that `save` writes has the generator's name, its configuration and the class names in its metadata. Its tensors are
float16, which halves the file; `load` converts them to float32. Called by the build, training, evaluation and the commands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from export import families
from export.checkpoints.identification import COUNTS, OURS, Contents, identify, namings, unknown_network
from export.checkpoints.reading import open_file
from export.families.spec import Spec
from runtime.errors import InvalidInput
from runtime.files import atomic_write, sha256

SHIPPED = Path(__file__).resolve().parents[1] / "weights"
RANDOM = "random:"
COMES_WITH = "shipped:"
BOOLEANS = {"true": True, "false": False}
LISTED = 5  # how many problems a message names; the others are only counted


@dataclass(frozen=True)
class Checkpoint:
    """A generator with its weights.

    module: in eval mode, float32. source: a file's name, or "random:SEED". sha256: of the file; "" for random weights.
    naming: the code base whose tensor names the file has; "" for random weights. notes: what the user should know about
    how the file was read, a sentence each.
    """

    model: str
    spec: Spec
    config: Any
    module: nn.Module
    class_names: tuple[str, ...]
    source: str
    sha256: str
    naming: str = ""
    notes: tuple[str, ...] = ()


def save(path: Path, model: str, config: Any, module: nn.Module, class_names: tuple[str, ...] = ()) -> None:
    """Write the module's weights to `path`, completely or not at all. Floats become float16."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in module.state_dict().items()
        if not name.endswith(COUNTS)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        save_file(tensors, unfinished, metadata(model, config, class_names))


def metadata(model: str, config: Any, class_names: tuple[str, ...]) -> dict[str, str]:
    """The safetensors metadata of a file that we write: model, config (JSON), class_names (JSON)."""
    return {"model": model, "config": json.dumps(asdict(config)), "class_names": json.dumps(class_names)}


def load(model: str, source: str | None = None, overrides: Mapping[str, str] | None = None) -> Checkpoint:
    """The generator `model` with the weights of `source`, in eval mode, float32.

    source: the path of a checkpoint whose tensor names the family knows, "shipped:NAME", "random:SEED", or None for the
    weights shipped under the generator's name.
    overrides: `--set key=value` pairs for settings that the file leaves open; for random weights, in place of the defaults.
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
    contents = identify(path)
    if not contents.model and namings(model):
        raise unknown_network(contents)
    if contents.model not in ("", model):
        raise InvalidInput(
            "weights",
            f"{path.name} holds a {contents.model!r} generator, expected {model!r}; give another --model or file",
        )
    config = resolve_config(contents, spec, overrides)
    module = build(spec, config)
    load_strictly(module, contents.tensors, path)
    return Checkpoint(
        model=model,
        spec=spec,
        config=config,
        module=module.eval(),
        class_names=contents.class_names,
        source=path.name,
        sha256=sha256(path),
        naming=contents.naming or OURS,
        notes=(*contents.notes, *open_assumptions(contents, overrides)),
    )


def resolve_config(contents: Contents, spec: Spec, overrides: Mapping[str, str]) -> Any:
    """The configuration of a checkpoint, with `overrides` for settings that the file leaves open.

    Raises InvalidInput if an override contradicts the file.
    """
    stored = {key: str(value) for key, value in contents.config.items()}
    ours, config = (configure(spec.config(), settings) for settings in (stored, stored | dict(overrides)))
    alternatives = {assumption.key: assumption.alternatives for assumption in contents.assumptions}
    for key in overrides.keys() & contents.config.keys():
        if getattr(config, key) != getattr(ours, key) and overrides[key] not in alternatives.get(key, ()):
            possible = " or ".join((str(contents.config[key]), *alternatives.get(key, ())))
            raise InvalidInput(
                "set",
                f"{key}: got {overrides[key]}, but {contents.path.name} has {possible}; leave out this --set",
            )
    return config


def open_assumptions(contents: Contents, overrides: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each setting that neither the file nor `overrides` decide: which value was assumed."""
    return tuple(str(assumption) for assumption in contents.assumptions if assumption.key not in overrides)


def locate(source: str) -> Path:
    """The file of a path or of "shipped:NAME". Raises InvalidInput if there is none."""
    if source.startswith(COMES_WITH):
        path = SHIPPED / f"{source.removeprefix(COMES_WITH)}.safetensors"
        if not path.is_file():
            shipped = ", ".join(COMES_WITH + path.stem for path in sorted(SHIPPED.glob("*.safetensors")))
            raise InvalidInput(
                "weights", f"{source} is not shipped; give a path, {RANDOM}SEED, or one of {shipped}"
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
    """`base`, a dataclass, with `overrides`, each parsed as the type of the value that it replaces.

    Raises InvalidInput for an unknown key or a text that does not parse. Written by hand, although msgspec and pydantic
    parse texts too, because their errors name `$.key` where the user typed `--set`.
    """
    types = {field.name: type(getattr(base, field.name)) for field in fields(base)}
    parsed: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in types:
            raise InvalidInput("set", f"got {key!r}, expected one of {', '.join(types)}")
        try:
            parsed[key] = BOOLEANS[value.lower()] if types[key] is bool else types[key](value)
        except (ValueError, KeyError) as error:
            expected = "true or false" if types[key] is bool else types[key].__name__
            raise InvalidInput("set", f"{key}: got {value!r}, expected {expected}") from error
    return type(base)(**(asdict(base) | parsed))


def build(spec: Spec, config: Any) -> nn.Module:
    """The module of a configuration, with its initial weights. Raises InvalidInput if the configuration cannot work."""
    try:
        return spec.module(config)
    except ValueError as error:
        raise InvalidInput("set", str(error)) from error
    # What torch raises for sizes that are negative, too large for memory or beyond its integers.
    except (RuntimeError, MemoryError, OverflowError, TypeError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput("set", f"this configuration cannot be built: {message}") from error


def outline(spec: Spec, config: Any) -> nn.Module:
    """The module on the meta device: it has the tensors' shapes and no memory for them. Raises InvalidInput as `build` does."""
    with torch.device("meta"):
        return build(spec, config)


def random_module(spec: Spec, config: Any, source: str) -> nn.Module:
    """The module with initial weights drawn from the seed in `source`, "random:SEED". In eval mode, float32."""
    seed = source.removeprefix(RANDOM)
    if not seed.isdigit():
        raise InvalidInput("weights", f"got {source!r}, expected {RANDOM}SEED with a whole number")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return build(spec, config).eval()


def read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors of a file that holds nothing else, under its own names, and its metadata. Floats become float32.

    For files of other networks than generators: classifiers and feature networks. Raises InvalidInput.
    """
    file = open_file(path)
    if not all(isinstance(value, Tensor) for value in file.content.values()):
        raise InvalidInput("weights", f"{path.name}: expected a state dict of tensors, got something else")
    return {
        key: value.float() if value.is_floating_point() else value for key, value in file.content.items()
    }, file.metadata


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `module`, converted to its dtypes. Raises InvalidInput unless names and shapes are the same."""
    check_fit(module, tensors, path)
    module.load_state_dict(dict(tensors), strict=False)  # batch norm's counts, which may be missing


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises InvalidInput naming the tensors that are missing, unexpected or of another shape than in `module`."""
    wanted = {key: value for key, value in module.state_dict().items() if not key.endswith(COUNTS)}
    given = {key: value for key, value in tensors.items() if not key.endswith(COUNTS)}
    problems = [f"missing {key}" for key in wanted.keys() - given.keys()]
    problems += [f"unexpected {key}" for key in given.keys() - wanted.keys()]
    problems += [
        f"{key}: got {tuple(given[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted.keys() & given.keys()
        if given[key].shape != wanted[key].shape
    ]
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        listed = "; ".join(sorted(problems)[:LISTED]) + more
        raise InvalidInput("weights", f"{path.name} does not fit the configuration (see --set): {listed}")
