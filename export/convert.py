"""A checkpoint in another dialect: `python -m export.convert esrgan.safetensors esrgan.pth --to basicsr`.

Tensors keep their values and dtypes to the bit; only their names and the file around them change.
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
from export.checkpoints import checkpoint, dialects
from export.checkpoints.dialect import Dialect
from export.checkpoints.dialects import Found
from export.families.settings import parse_settings
from runtime.errors import GanforgeError, InvalidInput

SAFETENSORS = "safetensors"
TARGETS = (*dict.fromkeys(one.target for _, one in dialects.known() if one.target), SAFETENSORS)
SUFFIXES = {SAFETENSORS: (".safetensors",)}
PICKLED = (".pth", ".pt", ".ckpt")


def convert(source: Path, target: Path, to: str, overrides: Mapping[str, str] | None = None) -> str:
    """Write the generator in `source` to `target`, by atomic rename, and say what was done.

    to: one of TARGETS. overrides: `--set key=value` pairs for what the file leaves open.
    Raises InvalidInput where the file holds no generator, and where the dialect cannot express it.
    """
    if target.suffix not in (expected := SUFFIXES.get(to, PICKLED)):
        raise InvalidInput(
            "out", f"got {target.name}, expected a name in {', '.join(expected)} for --to {to}"
        )
    found = dialects.understand(checkpoint.locate(str(source)))
    if not found.model:
        raise checkpoint.unknown(found)
    spec = families.get(found.model)
    config = checkpoint.settle(found, spec, overrides or {})
    checkpoint.check_fit(checkpoint.outline(spec, config), found.tensors, source)
    name, write = writer(found, config, to)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".part")
    try:
        write(unfinished)
        unfinished.replace(target)
    except (RuntimeError, SafetensorError) as error:  # what torch and safetensors make of a failed write
        raise InvalidInput("out", f"{target} cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return f"{found.model}, from {found.dialect} to {name}, {len(found.tensors)} tensors"


def writer(found: Found, config: Any, to: str) -> tuple[str, Callable[[Path], None]]:
    """The dialect's name, and what writes a file in it. Raises InvalidInput where it cannot express the network."""
    tensors = {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in found.tensors.items()
        if not key.endswith(dialects.COUNTS)
    }
    if to == SAFETENSORS:
        metadata = checkpoint.metadata(found.model, config, found.class_names)
        return dialects.OURS, lambda path: save_file(tensors, path, metadata)
    dialect = spoken(found.model, to)
    if lacks := dialect.lacks(config):
        raise InvalidInput("to", f"{dialect.name} cannot express {lacks}, which {found.path.name} has")
    names = dialect.theirs(tensors)
    state: dict[str, Any] = {names[key]: value for key, value in tensors.items()}
    if dialect.wrapped:
        state = {"params_ema" if found.averaged else "params": state}
    return dialect.name, lambda path: torch.save(state, path)


def spoken(model: str, to: str) -> Dialect:
    """The dialect of `model` that is written as `to`. Raises InvalidInput with those there are."""
    written = {one.target: one for one in dialects.of(model) if one.target}
    if to not in written:
        raise InvalidInput("to", f"got {to}, but {model} is written as {', '.join([*written, SAFETENSORS])}")
    return written[to]


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", type=click.Choice(TARGETS), required=True, help="The dialect to write.")
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="What IN leaves open, e.g. scale=3; repeatable."
)  # fmt: skip
def main(source: Path, target: Path, to: str, settings: tuple[str, ...]) -> None:
    """Write to OUT the generator in the checkpoint IN (PATH or shipped:NAME), exactly, under another dialect's names.

    A file that is at OUT is replaced, once the new one is whole.
    """
    try:
        click.echo(f"{target}: {convert(source, target, to, parse_settings(settings))}")
    except (GanforgeError, OSError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
