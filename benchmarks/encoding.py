"""`python -m benchmarks.encoding`: how fast answers are encoded and how large they are, beside the model's own speed.

The picture is a shipped photograph, enlarged to the size of an answer. Pillow encodes it in turns with our encoder, in
each format and at each level. Writes encoding.json and encoding.png.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks import machine, plots
from export.build.photographs import crop
from runtime import backends, bundle
from runtime.pictures.formats import Encoding, PixelFormat
from runtime.pictures.writing import Output
from runtime.pixels import to_uint8
from runtime.tensors import Array

SIDE_PX = 1024
LEVELS = (None, 0, 1, 3, 6, 9)
# Pillow's options for our level or quality; None is the default of each.
PILLOW: dict[str, Callable[[int | None], dict[str, Any]]] = {
    "png": lambda level: {} if level is None else {"compress_level": level},
    "jpeg": lambda quality: {"quality": quality or 92, "subsampling": 0},  # as ours from quality 90 on
    "webp": lambda quality: {"quality": quality or 90},
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--bundles", type=click.Path(path_type=Path), default="bundles", show_default=True)
@click.option("--model", default="esrgan-x4", show_default=True, help="The model to compare the codecs with.")
@click.option("--output", type=click.Path(path_type=Path), default="benchmarks/results", show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Times each is measured; the fastest counts.",
)
def main(bundles: Path, model: str, output: Path, rounds: int) -> None:
    """Measure encoding on one thread against the model on all of them."""
    picture = np.ascontiguousarray(to_uint8(crop(SIDE_PX, SIDE_PX).transpose(1, 2, 0)))
    report: dict[str, Any] = {"machine": machine.describe(), "side_px": SIDE_PX, "rows": []}
    report["model"] = {"name": model, "mpx_per_s": round(model_speed(bundles / model, rounds), 3)}
    click.echo(f"{model} makes {report['model']['mpx_per_s']} million pixels a second")
    for format, level in (
        *(("png", level) for level in LEVELS),
        ("jpeg", None),
        ("webp", None),
        ("tiff", None),
    ):
        row = measured(picture, format, level, rounds)
        report["rows"].append(row)
        peer = f", {row['of_pillow']:.2f} times Pillow" if "of_pillow" in row else ""
        click.echo(f"{row['name']:<14} {row['mpx_per_s']:8.2f} million pixels a second, "
                   f"{row['bytes_per_px']:.2f} bytes a pixel{peer}")  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    (output / "encoding.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plots.encoding(report, output / "encoding.png")


def measured(picture: Array, format: str, level: int | None, rounds: int) -> dict[str, Any]:
    """A row of the report: the speed of one format at one level, ours and Pillow's, measured in turns.

    picture: [SIDE_PX, SIDE_PX, 3] uint8. Speeds are in millions of pixels a second, of the fastest of `rounds`.
    """
    encoding = Encoding(format, compression=level)
    ours = Output(SIDE_PX, SIDE_PX, PixelFormat(3), SIDE_PX, SIDE_PX, 8, encoding)
    image, peer = Image.fromarray(picture), PILLOW.get(format)
    ours_s, peer_s = [], []
    for _ in range(rounds):
        ours_s.append(timed(lambda: ours.to_memory(picture)))
        if peer:
            peer_s.append(timed(lambda: image.save(io.BytesIO(), format, **peer(level))))
    row = {
        "name": format if level is None else f"{format}, level {level}",
        "mpx_per_s": round(picture.shape[0] * picture.shape[1] / min(ours_s) / 1e6, 2),
        "bytes_per_px": round(len(ours.to_memory(picture)) / (SIDE_PX * SIDE_PX), 3),
    }
    return row | ({"of_pillow": round(min(peer_s) / min(ours_s), 3)} if peer_s else {})


def model_speed(folder: Path, rounds: int) -> float:
    """Output pixels that the model computes, in millions a second, in full batches of its smallest tile.

    folder: the bundle's. Pixels of the halo do not count.
    """
    engine, _ = backends.open_engine(bundle.load(folder))
    manifest, tile = engine.manifest, engine.manifest.tile_sizes[0]
    inputs = {manifest.inputs[0].name: np.repeat(crop(tile, tile)[None], engine.max_batch, axis=0)}
    engine.run(inputs)
    seconds = min(timed(lambda: engine.run(inputs)) for _ in range(rounds))
    engine.close()
    core = tile - 2 * manifest.halo
    return engine.max_batch * (core * manifest.scale) ** 2 / seconds / 1e6


def timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
