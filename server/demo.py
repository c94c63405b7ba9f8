"""`python -m server.demo`: starts a server, upscales a picture, draws samples, and says where the pictures lie.

Everything goes through the gRPC client, as a user's program would.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import numpy as np

from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.errors import GanforgeError, ModelNotFound
from runtime.tensors import Array
from server.client import Client
from server.launch import launched

MAX_PIXELS = 2**24
SEED = 1
SAMPLES = 64
# A model with classes shows each of them in a row.
SAMPLES_A_CLASS = 10
# Side of the detail that is compared, in pixels of the given picture.
DETAIL_PX = 80


@click.command(context_settings={"max_content_width": 110})
@click.option(
    "--bundles", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of bundles."
)
@click.option(
    "--picture", type=click.Path(exists=True, path_type=Path), required=True, help="Picture to upscale."
)
@click.option("--output", type=click.Path(path_type=Path), default="demo-output", show_default=True)
@click.option(
    "--detail",
    type=(click.FloatRange(0, 1), click.FloatRange(0, 1)),
    default=(0.43, 0.22),
    show_default=True,
    help="Centre of the detail that is compared, as parts of the width and height.",
)
def main(bundles: Path, picture: Path, output: Path, detail: tuple[float, float]) -> None:
    """Show every model in BUNDLES at work through a server of its own."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        click.echo("Starting the server …")
        with launched(bundles, log=output / "server.log") as server, Client(server.address) as client:
            click.echo(f"It serves on {server.address}.")
            models = client.models()
            if not models:
                raise ModelNotFound(f"{bundles}: no model is served")
            for model in models:
                if model.task == pb.TASK_UPSCALE:
                    _upscale(client, model, picture, output, detail)
                else:
                    _generate(client, model, output)
    except GanforgeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


def _upscale(
    client: Client, model: pb.ModelInfo, picture: Path, output: Path, detail: tuple[float, float]
) -> None:
    """Writes the upscaled picture, and a detail of it beside the same detail by bicubic interpolation."""
    started_s = time.perf_counter()
    answer = client.upscale(picture.read_bytes(), model=model.name, format="png")
    took_ms = (time.perf_counter() - started_s) * 1e3
    small = pixels.decode(picture.read_bytes(), max_pixels=MAX_PIXELS)  # [H, W, 3] uint8
    large = pixels.decode(answer.image, max_pixels=MAX_PIXELS * model.scale**2)  # [SH, SW, 3] uint8
    bicubic = pixels.resize(small, answer.width, answer.height, kernel="cubic")
    upscaled, beside = (
        output / f"{picture.stem}-x{model.scale}.png",
        output / f"{picture.stem}-beside-bicubic.png",
    )
    upscaled.write_bytes(answer.image)
    window = _window(small.shape, detail, model.scale)
    beside.write_bytes(pixels.encode(pixels.grid([bicubic[window], large[window]], 2, gap=8), "png"))

    click.echo(
        f"\n{model.name} upscaled {picture} from {small.shape[1]}×{small.shape[0]} px in {_told(took_ms, answer.timing)}"
    )
    click.echo(f"  {upscaled}: {answer.width}×{answer.height} px")
    click.echo(f"  {beside}: a detail, on the left by bicubic interpolation, on the right by {model.name}")


def _window(shape: tuple[int, ...], centre: tuple[float, float], scale: int) -> tuple[slice, slice]:
    """Rows and columns of the detail in the upscaled picture, moved inside where it would stick out."""
    starts = [
        min(max(round(part * length) - DETAIL_PX // 2, 0), max(length - DETAIL_PX, 0))
        for part, length in zip(reversed(centre), shape, strict=False)
    ]
    rows, columns = (slice(start * scale, (start + DETAIL_PX) * scale) for start in starts)
    return rows, columns


def _generate(client: Client, model: pb.ModelInfo, output: Path) -> None:
    """Writes a grid of samples; of a model with classes, one class a row."""
    classes = len(model.class_names)
    labels = np.repeat(np.arange(classes), SAMPLES_A_CLASS).tolist()
    started_s = time.perf_counter()
    answer = client.generate(len(labels) or SAMPLES, model=model.name, seed=SEED, labels=labels, format="png")
    took_ms = (time.perf_counter() - started_s) * 1e3
    samples: list[Array] = [pixels.decode(image, max_pixels=MAX_PIXELS) for image in answer.images]
    sheet = output / f"{model.name}-samples.png"
    sheet.write_bytes(pixels.encode(pixels.grid(samples, SAMPLES_A_CLASS if classes else None), "png"))

    click.echo(f"\n{model.name} drew {len(samples)} samples in {_told(took_ms, answer.timing)}")
    rows = f", row by row: {', '.join(model.class_names)}" if classes else ""
    click.echo(f"  {sheet}: {answer.width}×{answer.height} px each, seed {SEED}{rows}")


def _told(took_ms: float, timing: pb.Timing) -> str:
    return f"{took_ms / 1e3:.1f} s ({timing.backend}, {timing.precision})"


if __name__ == "__main__":
    main()
