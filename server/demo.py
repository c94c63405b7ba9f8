"""The command `python -m server.demo`: starts a server, runs every model through the client and saves the pictures.

`make demo` calls it. Prints where the results are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.errors import GanforgeError, ModelNotFound
from runtime.tensors import Array
from server.client import Client
from server.launch import launched

Result = TypeVar("Result")

MAX_PIXELS = 2**24
SEED = 1
SAMPLES = 64
# Of a model with classes; each class is a row.
SAMPLES_A_CLASS = 10
# Side of the detail shown in the comparison, in pixels of the input picture.
DETAIL_PX = 80


@click.command(context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]})
@click.option(
    "--bundles", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of bundles."
)
@click.option(
    "--picture", type=click.Path(exists=True, path_type=Path), required=True, help="Picture to upscale."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default="demo-output",
    show_default=True,
    help="Folder for the results.",
)
@click.option(
    "--detail",
    type=(click.FloatRange(0, 1), click.FloatRange(0, 1)),
    default=(0.43, 0.22),
    show_default=True,
    help="Centre of the detail in the comparison, as fractions of width and height.",
)
def main(bundles: Path, picture: Path, output: Path, detail: tuple[float, float]) -> None:
    """Start a server, run every model in the folder of bundles, and save the pictures."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        click.echo("Starting the server …")
        with launched(bundles, log=output / "server.log") as server, Client(server.address) as client:
            click.echo(f"It serves on {server.address}.")
            models = client.models()
            if not models:
                raise ModelNotFound(f"{bundles}: no model is served")
            for model in models:
                SHOWS[model.task](Demo(client, model, picture, output, detail))
    except GanforgeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


@dataclass(frozen=True)
class Demo:
    """One model to show. detail: centre of the detail in the comparison, as fractions of width and height."""

    client: Client
    model: pb.ModelInfo
    picture: Path
    output: Path
    detail: tuple[float, float]


def _show_upscaling(demo: Demo) -> None:
    """Save the upscaled picture, and a detail of it beside bicubic interpolation."""
    picture, scale = demo.picture, demo.model.scale
    answer, seconds = _timed(lambda: demo.client.upscale(picture, model=demo.model.name, format="png"))
    small = pixels.decode(picture.read_bytes(), max_pixels=MAX_PIXELS)  # [H, W, 3] uint8
    large = pixels.decode(answer.image, max_pixels=MAX_PIXELS * scale**2)  # [SH, SW, 3] uint8
    bicubic = pixels.resize(small, answer.width, answer.height, kernel="cubic")
    # The default model's pictures have the plain names, so that those of several upscalers lie side by side.
    prefix = f"{picture.stem}-" + ("" if demo.model.is_default else f"{demo.model.name}-")
    upscaled = demo.output / f"{prefix}x{scale}.png"
    comparison = demo.output / f"{prefix}beside-bicubic.png"
    upscaled.write_bytes(answer.image)
    window = _window(small.shape, demo.detail, scale)
    comparison.write_bytes(pixels.encode(pixels.grid([bicubic[window], large[window]], 2, gap=8), "png"))

    size = f"{small.shape[1]}×{small.shape[0]} px"
    click.echo(f"\n{demo.model.name} upscaled {picture} from {size} in {_took(seconds, answer.timing)}")
    click.echo(f"  {upscaled}: {answer.width}×{answer.height} px")
    click.echo(f"  {comparison}: a detail, on the left by bicubic interpolation, on the right by the model")


def _show_translation(demo: Demo) -> None:
    """Save the translated picture."""
    answer, seconds = _timed(lambda: demo.client.translate(demo.picture, model=demo.model.name, format="png"))
    translated = demo.output / f"{demo.picture.stem}-{demo.model.name}.png"
    translated.write_bytes(answer.image)

    click.echo(f"\n{demo.model.name} translated {demo.picture} in {_took(seconds, answer.timing)}")
    click.echo(f"  {translated}: {answer.width}×{answer.height} px")


def _show_samples(demo: Demo) -> None:
    """Save a grid of samples, one row per class if the model has classes."""
    name, class_names = demo.model.name, demo.model.class_names
    labels = [label for label in range(len(class_names)) for _ in range(SAMPLES_A_CLASS)]
    count = len(labels) or SAMPLES
    answer, seconds = _timed(
        lambda: demo.client.generate(count, model=name, seed=SEED, labels=labels, format="png")
    )
    samples: list[Array] = [pixels.decode(image, max_pixels=MAX_PIXELS) for image in answer.images]
    sheet = demo.output / f"{name}-samples.png"
    sheet.write_bytes(pixels.encode(pixels.grid(samples, SAMPLES_A_CLASS if labels else None), "png"))

    click.echo(f"\n{name} drew {count} samples in {_took(seconds, answer.timing)}")
    rows = f", row by row: {', '.join(class_names)}" if labels else ""
    click.echo(f"  {sheet}: {answer.width}×{answer.height} px each, seed {SEED}{rows}")


SHOWS: Mapping[int, Callable[[Demo], None]] = {
    pb.TASK_UPSCALE: _show_upscaling,
    pb.TASK_TRANSLATE: _show_translation,
    pb.TASK_GENERATE: _show_samples,
}


def _window(shape: tuple[int, ...], centre: tuple[float, float], scale: int) -> tuple[slice, slice]:
    """Rows and columns of the detail in the upscaled picture, shifted to lie inside it."""
    starts = [
        min(max(round(part * length) - DETAIL_PX // 2, 0), max(length - DETAIL_PX, 0))
        for part, length in zip(reversed(centre), shape, strict=False)
    ]
    rows, columns = (slice(start * scale, (start + DETAIL_PX) * scale) for start in starts)
    return rows, columns


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of the call and its duration in seconds."""
    started_s = time.perf_counter()
    return call(), time.perf_counter() - started_s


def _took(seconds: float, timing: pb.Timing) -> str:
    return f"{seconds:.1f} s ({timing.backend}, {timing.precision})"


if __name__ == "__main__":
    main()
