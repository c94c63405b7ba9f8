"""`python -m export.inspect FILE`: prints a table of what a checkpoint holds, or what else the file is.

`ganforge inspect` runs the same.
"""

from __future__ import annotations

import sys

import click

from export import families
from export.checkpoints import checkpoint
from export.checkpoints.identification import Contents, dtype, identify, unknown_network
from export.checkpoints.unsupported import UnsupportedCheckpoint
from export.inspect.cost import count
from runtime.errors import GanforgeError
from runtime.files import sha256

UNUSABLE = 1  # the exit status where no build can use the file


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("file", metavar="FILE")
def main(file: str) -> None:
    """Say what the checkpoint FILE (PATH or shipped:NAME) is. The exit status is 1 where no build can use it."""
    try:
        path = checkpoint.locate(file)
        contents = identify(path)
        if not contents.model:
            raise unknown_network(contents)
        spec = families.get(contents.model)
        config = checkpoint.resolve_config(contents, spec, {})
        outline = checkpoint.outline(spec, config)
        checkpoint.check_fit(outline, contents.tensors, path)
        rows = description(contents) | {"cost": str(count(spec, config, outline)), "sha256": sha256(path)}
        click.echo(table({"file": path.name} | rows))
    except UnsupportedCheckpoint as error:
        rows = {"is": error.kind, "recognised by": ", ".join(error.evidence), "do": error.advice}
        click.echo(table({"file": path.name} | rows))
        sys.exit(UNUSABLE)
    except (GanforgeError, OSError) as error:
        raise click.ClickException(str(error)) from error


def description(contents: Contents) -> dict[str, str]:
    """The rows of the table between the file's name and its hash."""
    dtypes = sorted({dtype(tensor) for tensor in contents.tensors.values()})
    notes = (*contents.notes, *checkpoint.open_assumptions(contents, {}))
    class_names = {"class names": ", ".join(contents.class_names)} if contents.class_names else {}
    return {
        "format": contents.format,
        "inside": " › ".join(contents.inside) or "nothing around it",
        "tensor names": contents.naming,
        "model": contents.model,
        **{key: str(value) for key, value in contents.config.items()},
        **class_names,
        "parameters": f"{parameter_count(contents):,}",
        "dtype": ", ".join(dtypes),
        "notes": "; ".join(notes) or "none",
    }


def parameter_count(contents: Contents) -> int:
    """The number of trained parameters, without batch norm's running statistics."""
    return sum(
        tensor.numel()
        for key, tensor in contents.tensors.items()
        if tensor.is_floating_point() and not key.endswith(("running_mean", "running_var"))
    )


def table(rows: dict[str, str]) -> str:
    return "\n".join(f"{key + ':':15}{value}" for key, value in rows.items())


if __name__ == "__main__":
    main()
