"""Writes a checkpoint under another code base's tensor names: `python -m export.convert IN OUT --to basicsr`.

Only the tensors' names and the file's structure change: values and dtypes stay the same, bit for bit. The file can then be
loaded in that code base. `ganforge convert` runs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from export import families
from export.checkpoints import checkpoint
from export.checkpoints.identification import (
    COUNTS,
    OURS,
    Contents,
    all_namings,
    identify,
    namings,
    unknown_network,
)
from export.checkpoints.naming import Naming
from export.families.settings import parse_settings
from runtime.errors import GanforgeError, InvalidInput
from runtime.files import atomic_write

SAFETENSORS = "safetensors"
TARGETS = (*dict.fromkeys(naming.target for _, naming in all_namings() if naming.target), SAFETENSORS)
SUFFIXES = {SAFETENSORS: (".safetensors",)}
PICKLED = (".pth", ".pt", ".ckpt")


def convert(source: Path, target: Path, to: str, overrides: Mapping[str, str] | None = None) -> str:
    """Write the generator in `source` to `target`, completely or not at all. Returns a sentence on what was done.

    to: one of TARGETS. overrides: `--set key=value` pairs for settings that the file leaves open.
    Raises InvalidInput if the file holds no generator, or the other code base's network has no such configuration.
    """
    if target.suffix not in (expected := SUFFIXES.get(to, PICKLED)):
        raise InvalidInput(
            "out", f"got {target.name}, expected a name in {', '.join(expected)} for --to {to}"
        )
    contents = identify(checkpoint.locate(str(source)))
    if not contents.model:
        raise unknown_network(contents)
    spec, overrides = families.get(contents.model), overrides or {}
    config = checkpoint.resolve_config(contents, spec, overrides)
    checkpoint.check_fit(checkpoint.outline(spec, config), contents.tensors, source)
    name, write = writer(contents, config, to)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(target) as unfinished:
            write(unfinished)
    except (RuntimeError, SafetensorError) as error:  # what torch and safetensors make of a failed write
        raise InvalidInput("out", f"{target} cannot be written: {str(error).splitlines()[0]}") from error
    notes = checkpoint.open_assumptions(contents, overrides)
    return "; ".join(
        (f"{contents.model}, from {contents.naming} to {name}, {len(contents.tensors)} tensors", *notes)
    )


def writer(contents: Contents, config: Any, to: str) -> tuple[str, Callable[[Path], None]]:
    """The code base's name, and a function that writes the file to a path.

    Raises InvalidInput if the code base's network has no such configuration.
    """
    tensors = {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in contents.tensors.items()
        if not key.endswith(COUNTS)
    }
    if to == SAFETENSORS:
        metadata = checkpoint.metadata(contents.model, config, contents.class_names)
        return OURS, lambda path: save_file(tensors, path, metadata)
    naming = writable_naming(contents.model, to)
    if lacks := naming.lacks(config):
        raise InvalidInput("to", f"{naming.name} cannot express {lacks}, which {contents.path.name} has")
    names = naming.from_ours(tensors)
    state: dict[str, Any] = {names[key]: value for key, value in tensors.items()}
    if naming.wrapped:
        state = {"params_ema" if contents.averaged else "params": state}
    return naming.name, lambda path: torch.save(state, path)


def writable_naming(model: str, to: str) -> Naming:
    """The naming of `model` for `--to`. Raises InvalidInput, listing those there are, if there is none."""
    by_target = {naming.target: naming for naming in namings(model) if naming.target}
    if to not in by_target:
        raise InvalidInput(
            "to", f"got {to}, but {model} is written as {', '.join([*by_target, SAFETENSORS])}"
        )
    return by_target[to]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--to", type=click.Choice(TARGETS), required=True, help="The code base, or file format, to write for."
)
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting that IN leaves open, e.g. scale=3; repeatable."
)  # fmt: skip
def main(source: Path, target: Path, to: str, settings: tuple[str, ...]) -> None:
    """Write the checkpoint IN (PATH or shipped:NAME) to OUT under the tensor names of another code base.

    An existing file at OUT is replaced when the new one is complete.
    """
    try:
        click.echo(f"{target}: {convert(source, target, to, parse_settings(settings))}")
    except (GanforgeError, OSError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
