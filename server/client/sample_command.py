"""The command `generate`, which draws samples on a server and saves them as files or as one grid.

`ganforge` and `python -m server.client` offer it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from runtime.errors import InvalidInput
from server import formats
from server.client.answer_file import AnswerFile
from server.client.options import FORMAT, MODEL, OVERWRITE, PRIORITY, Connection, connected, format_of_name
from server.client.results import SamplesResult
from server.client.sample_grid import sample_grid
from server.client.transfers import STREAM, SUFFIX_OF_FORMAT


@click.command()
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Number of samples.")
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), help="Seed, to reproduce samples.  [default: random]"
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    help="Class, by name or number. Give it once for all samples, or once per sample.",
)
@click.option("--truncation", type=float, help="Limit on latent values, in standard deviations.")
@click.option("--grid", is_flag=True, help="Write one picture with all samples instead of a folder of files.")
@click.option(
    "--columns", type=click.IntRange(min=1), help="Columns of the grid.  [default: as square as possible]"
)
@MODEL
@FORMAT
@OVERWRITE
@PRIORITY
@connected
def generate(
    target: Path,
    count: int,
    labels: tuple[str, ...],
    grid: bool,
    columns: int | None,
    format: str | None,
    overwrite: bool,
    connection: Connection,
    **options: Any,
) -> None:
    """Draw samples and save them in the folder OUT, or with --grid as the picture OUT (- for standard output)."""
    numbers = [int(label) if label.isdecimal() else label for label in labels]
    if target == STREAM and not grid:
        raise click.UsageError("OUT is -, which is for a single picture; name a folder, or give --grid")
    if grid:
        format = format or format_of_name(target.name)
        if format is None:
            raise click.UsageError(
                f"OUT is {target}; for a grid, expected a suffix of {', '.join(formats.SUFFIXES)}, or give --format"
            )
        if target == STREAM and sys.stdout.isatty():
            raise click.UsageError("OUT is -, and standard output is a terminal; send it to a file or a pipe")
        _refuse_existing([target], overwrite)
    elif format_of_name(target.name) and not target.is_dir():
        raise click.UsageError(f"OUT {target} is named like a picture; name a folder, or give --grid")
    with connection.client() as client:
        samples = client.generate(count, labels=numbers, format="png" if grid else format, **options)
    if grid:
        _write(target, sample_grid(samples, columns, format or "png"), overwrite)
    else:
        names = _names(samples)
        _refuse_existing([target / name for name in names], overwrite)
        for name, image in zip(names, samples.images, strict=True):
            _write(target / name, image, overwrite)
    size = f"{samples.width}×{samples.height}"
    click.echo(
        f"{count} samples of {size} by {samples.model}, seed {samples.seed} → {target}", err=target == STREAM
    )


def _names(samples: SamplesResult) -> list[str]:
    suffix = SUFFIX_OF_FORMAT[samples.format]
    return [f"{samples.model}-{samples.seed}-{index:04}{suffix}" for index in range(len(samples.images))]


def _refuse_existing(targets: list[Path], overwrite: bool) -> None:
    taken = [target for target in targets if target != STREAM and os.path.lexists(target)]
    if taken and not overwrite:
        raise InvalidInput("OUT", f"{taken[0]} exists; --overwrite replaces it")


def _write(target: Path, image: bytes, overwrite: bool) -> None:
    if target == STREAM:
        sys.stdout.buffer.write(image)
        return
    with AnswerFile(target) as file:
        file.file.write(image)
        file.save(target, overwrite=overwrite)
