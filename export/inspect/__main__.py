"""`python -m export.inspect FILE`: a short table of what a checkpoint is, or of what it is instead."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import click

from export import families
from export.checkpoints import checkpoint, dialects
from export.checkpoints.dialects import Found
from export.checkpoints.unsupported import Stranger
from runtime.errors import GanforgeError

REFUSED = 1


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("file", metavar="FILE")
def main(file: str) -> None:
    """Say what the checkpoint FILE (PATH or shipped:NAME) is. The exit status is 1 where no build can use it."""
    try:
        path = checkpoint.locate(file)
        found = dialects.understand(path)
        if not found.model:
            raise checkpoint.unknown(found)
        if not found.questions:
            spec = families.get(found.model)
            checkpoint.check_fit(
                checkpoint.outline(spec, checkpoint.settle(found, spec, {})), found.tensors, path
            )
        click.echo(table({"file": path.name} | described(found) | {"sha256": sha256(path)}))
    except Stranger as stranger:
        click.echo(
            table(
                {
                    "file": path.name,
                    "is": stranger.name,
                    "told by": ", ".join(stranger.keys),
                    "do": stranger.advice,
                }
            )
        )
        sys.exit(REFUSED)
    except (GanforgeError, OSError) as error:
        raise click.ClickException(str(error)) from error


def described(found: Found) -> dict[str, str]:
    """What the table says beside the file's name and hash."""
    config = {key: str(value) for key, value in found.config.items()}
    open_ones = {question.key: f"open: {question}" for question in found.questions}
    kinds = sorted({dialects.dtype(tensor) for tensor in found.tensors.values()})
    return {
        "format": found.format,
        "inside": " › ".join(found.inside) or "nothing around it",
        "dialect": found.dialect,
        "model": found.model,
        **open_ones,
        **config,
        "parameters": f"{parameters(found):,}",
        "dtype": ", ".join(kinds),
        "notes": "; ".join(found.notes) or "none",
    }


def parameters(found: Found) -> int:
    """Numbers that training changed: batch norm's statistics are not among them."""
    return sum(
        tensor.numel()
        for key, tensor in found.tensors.items()
        if tensor.is_floating_point() and not key.endswith(("running_mean", "running_var"))
    )


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table(lines: dict[str, str]) -> str:
    return "\n".join(f"{key + ':':15}{value}" for key, value in lines.items())


if __name__ == "__main__":
    main()
