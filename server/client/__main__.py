"""`python -m server.client`: upscale pictures, draw samples, list models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from protos import ganforge_pb2 as pb
from runtime.errors import GanforgeError
from server import formats
from server.client import DEFAULT_ADDRESS, Client, Generated
from server.client.folders import Errand, run

TASK_NAMES = {pb.TASK_UPSCALE: "upscale", pb.TASK_GENERATE: "generate"}


class Sentences(click.Group):
    """Every error of ours or of the file system is one sentence and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (GanforgeError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=Sentences, context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]}
)
def main() -> None:
    """Call a ganforge server."""


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command has."""
    address = click.option(
        "--address",
        default=DEFAULT_ADDRESS,
        show_default=True,
        metavar="HOST:PORT",
        help="Where the server is.",
    )
    timeout = click.option(
        "--timeout-s",
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds of each call.  [default: for ever]",
    )
    return address(timeout(command))


FORMAT = click.option("--format", type=click.Choice(list(formats.NUMBERS)), help="Encoding of the answer.")
MODEL = click.option("--model", default="", help="Name of the model.  [default: the only one]")


@main.command()
@click.argument("source", metavar="IN", type=click.Path(exists=True, path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@MODEL
@click.option(
    "--outscale", type=float, help="Output pixels per input pixel along a side.  [default: the model's]"
)
@FORMAT
@click.option("--quality", type=click.IntRange(1, 100), help="Of JPEG and WebP.  [default: 92 and 90]")
@click.option("--lossless", is_flag=True, help="WebP without loss; PNG and TIFF always are.")
@click.option("--compression", type=click.IntRange(0, 9), help="Effort of PNG and TIFF.  [default: 1]")
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=4, show_default=True, help="Pictures of a folder at once."
)
@connected
def upscale(
    source: Path, target: Path, jobs: int, address: str, timeout_s: float | None, **options: Any
) -> None:
    """Upscale the picture IN, or every picture in the folder IN, into OUT."""
    meant = formats.SUFFIXES.get(target.suffix.lower())
    if (
        options["format"]
        and meant
        and source.is_file()
        and not target.is_dir()
        and meant != options["format"]
    ):
        raise click.UsageError(
            f"OUT ends with {target.suffix}, which is not --format {options['format']}; give one of the two"
        )
    if options["format"] is None and source.is_file() and not target.is_dir() and target.suffix:
        options["format"] = formats.SUFFIXES.get(target.suffix.lower())
        if options["format"] is None:
            raise click.UsageError(
                f"OUT ends with {target.suffix}; expected one of {', '.join(formats.SUFFIXES)}, a folder, or --format"
            )
    with Client(address, timeout_s=timeout_s) as client:
        failed = run(client, Errand.list(source, target), options, jobs)
    if failed:
        raise click.ClickException(f"{failed} of the pictures could not be upscaled")


@main.command()
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Samples to draw.")
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), help="Draws the same samples again.  [default: random]"
)
@click.option(
    "--label", "labels", multiple=True, help="Class, by name or number; once for all, or once a sample."
)
@click.option("--truncation", type=float, help="Bound of the latents' values, in standard deviations.")
@click.option("--grid", is_flag=True, help="Write one picture with all samples, instead of a folder of them.")
@click.option("--columns", type=click.IntRange(min=1), help="Of the grid.  [default: as square as it goes]")
@MODEL
@FORMAT
@connected
def generate(
    target: Path,
    count: int,
    labels: tuple[str, ...],
    grid: bool,
    columns: int | None,
    format: str | None,
    address: str,
    timeout_s: float | None,
    **options: Any,
) -> None:
    """Draw samples into the folder OUT, or with --grid into the one picture OUT."""
    numbers = [int(label) if label.isdecimal() else label for label in labels]
    if grid and format is None:
        format = formats.SUFFIXES.get(target.suffix.lower())
        if format is None:
            raise click.UsageError(
                f"OUT of a grid ends with one of {', '.join(formats.SUFFIXES)}, or give --format"
            )
    with Client(address, timeout_s=timeout_s) as client:
        samples = client.generate(count, labels=numbers, format="png" if grid else format, **options)
    if grid:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_grid(samples, columns, format or "png"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(samples.images):
            (target / f"{samples.model}-{samples.seed}-{number:04}.{samples.format}").write_bytes(image)
    click.echo(
        f"{count} of {samples.width}×{samples.height} by {samples.model}, seed {samples.seed} → {target}"
    )


@main.command()
@connected
def models(address: str, timeout_s: float | None) -> None:
    """List what the server serves."""
    with Client(address, timeout_s=timeout_s) as client:
        infos = client.models()
    table = Table("model", "task", "scale", "sample", "latent", "classes", "precision", "backend")
    for info in infos:
        sample = f"{info.width}×{info.height}" if info.width else ""
        classes = ", ".join(info.class_names)
        scale = f"×{info.scale}" if info.task == pb.TASK_UPSCALE else ""
        latent = str(info.latent_size or "")
        table.add_row(
            info.name, TASK_NAMES[info.task], scale, sample, latent, classes, info.precision, info.backend
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@main.command()
@connected
def health(address: str, timeout_s: float | None) -> None:
    """Exit with 0 where every model is warm, else with 1."""
    with Client(address, timeout_s=timeout_s or 5) as client:
        if not client.serving():
            raise click.ClickException(f"{address} is not serving")
    click.echo(f"{address} is serving")


def _grid(samples: Generated, columns: int | None, format: str) -> bytes:
    from runtime import pixels  # libvips, which only a grid needs here

    area = samples.width * samples.height
    return pixels.encode(
        pixels.grid([pixels.decode(one, max_pixels=area) for one in samples.images], columns), format
    )


if __name__ == "__main__":
    main(prog_name="python -m server.client")
