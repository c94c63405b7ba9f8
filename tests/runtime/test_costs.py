"""The costs that admission is asked for are upper bounds of what a process really needs, in memory and on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips

from runtime.admission import LARGEST_SHARE
from runtime.picture_work import IN_MEMORY_BYTES, PictureWork
from runtime.pictures.formats import Encoding
from runtime.pictures.reading import open_picture
from server.limits import Limits
from tests.server.conftest import SCALE, FakeUpscaler, png
from tests.server.kinds import vips, waves

ROOT = Path(__file__).parents[2]


def texture(width: int, height: int, channels: int = 3) -> Any:
    """[H, W, C] uint8: slopes and noise, half of any alpha hidden."""
    noise = np.random.default_rng(0).integers(0, 40, (height, width, channels), np.uint8)
    values: Any = (waves(channels, height, width) * 200).astype(np.uint8) + noise
    if channels == 4:
        values[: height // 2, :, 3] = 0
    return values


def saved(folder: Path, kind: str) -> Path:
    """A file of a kind that is decoded or processed in a way of its own."""
    path = folder / kind
    match kind:
        case "small.png":
            vips(texture(300, 300), "srgb").pngsave(str(path))
        case "progressive.jpeg":
            vips(texture(1500, 1500), "srgb").jpegsave(str(path), interlace=True, subsample_mode="off")
        case "large.webp":
            vips(texture(1500, 1500), "srgb").webpsave(str(path), effort=0)
        case "hidden.png":
            vips(texture(900, 900, 4), "srgb").pngsave(str(path), compression=1)
        case "low.png":
            vips(texture(30_000, 4), "srgb").pngsave(str(path), compression=1)
        case "wide.jpeg":
            vips(texture(8064, 120), "srgb").jpegsave(str(path))
        case "wide hidden.png":
            vips(texture(6000, 150, 4), "srgb").pngsave(str(path), compression=1)
        case "float.tiff":
            vips(texture(64, 64, 4).astype(np.float32) / 255, "scrgb").tiffsave(str(path))
    return path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads a process's memory from /proc")
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("small.png", {"format": "webp", "lossless": True}),
        ("progressive.jpeg", {"format": "jpeg", "outscale": 1.5}),
        ("large.webp", {"format": "png"}),
        ("hidden.png", {"format": "png"}),
        ("low.png", {"format": "tiff", "outscale": 3}),
        ("float.tiff", {"format": "tiff", "outscale": 50, "compression": 0}),
        ("wide.jpeg", {"format": "jpeg", "outscale": 2}),
        ("wide.jpeg", {"format": "png", "outscale": 0.5}),
        ("small.png", {"format": "jpeg", "outscale": 9}),
        ("wide hidden.png", {"format": "png", "outscale": 1}),
    ],
)
def test_a_picture_needs_no_more_memory_than_its_cost_says(
    tmp_path: Path, kind: str, wanted: dict[str, Any]
) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.runtime.measured_cost",
        str(saved(tmp_path, kind)),
        json.dumps(wanted),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["peak"] <= measured["bound"]


def work(
    file: bytes, outscale: float = SCALE, *, engine: FakeUpscaler | None = None, **encoding: Any
) -> PictureWork:
    opened = open_picture(file, max_pixels=2**26)
    width, height = (max(1, round(side * outscale)) for side in (opened.header.width, opened.header.height))
    return PictureWork(
        engine or FakeUpscaler(),
        opened,
        width=width,
        height=height,
        encoding=Encoding(**encoding),
        file_bytes=len(file),
    )


def test_a_thumbnail_costs_little() -> None:
    assert work(png(32, 32), format="png").cost.memory_bytes < 8 * 2**20


@pytest.mark.parametrize(
    ("width", "height", "kind"),
    [
        (4000, 3000, "jpeg"),  # 12 megapixels
        (5700, 4280, "jpeg"),  # 24
        (8064, 6048, "jpeg"),  # 48
        (4000, 3000, "rgba.png"),
        (8000, 6000, "rgba.png"),
    ],
)
def test_the_photograph_of_a_phone_fits_into_the_default_budget(width: int, height: int, kind: str) -> None:
    """At any scale, in every format that is written row by row, with the tiles of the model that is shipped."""
    limits, engine = Limits(), FakeUpscaler()
    engine.manifest = replace(engine.manifest, tile_sizes=(96,), halo=8)
    most_bytes = limits.max_active_bytes * LARGEST_SHARE
    most_disk_bytes = limits.max_disk_bytes * LARGEST_SHARE
    black = pyvips.Image.black(width, height, bands=3 + (kind == "rgba.png")).copy(interpretation="srgb")
    photograph = black.jpegsave_buffer() if kind == "jpeg" else black.pngsave_buffer(compression=1)
    for outscale in (0.5, 1, 2, 3, SCALE):
        assert width * height * outscale**2 <= limits.max_output_pixels
        for format in ("jpeg", "png", "tiff"):
            cost = work(photograph, outscale, engine=engine, format=format).cost
            assert cost.memory_bytes <= most_bytes, (outscale, format)
            assert cost.disk_bytes <= most_disk_bytes, (outscale, format)


def test_a_small_picture_made_large_goes_to_disk_where_its_format_can() -> None:
    """64×64 px of floats at 512 px per px: 16 GiB, of which a few hundred MB are in memory at once."""
    file = vips(waves(4, 64, 64), "scrgb").tiffsave_buffer()
    streamed = work(file, 512, format="tiff", compression=0)
    assert not streamed.in_memory
    assert streamed.cost.disk_bytes >= (64 * 512) ** 2 * 4 * 4
    assert streamed.cost.memory_bytes < 2**30
    assert streamed.cost.field == "outscale"


def test_the_cost_of_a_format_that_is_encoded_as_a_whole_grows_with_the_picture() -> None:
    costs = [work(png(64, 64), scale, format="webp").cost.memory_bytes for scale in (64, 128)]
    assert costs[1] - costs[0] > (128**2 - 64**2) * 64**2 * 14  # bytes per pixel, measured


def test_answers_are_encoded_to_memory_up_to_a_size() -> None:
    side = int((IN_MEMORY_BYTES / 3) ** 0.5)
    assert work(png(10, 10), side / 10, format="png").in_memory
    assert not work(png(10, 10), side / 10 + 1, format="png").in_memory


@pytest.mark.parametrize("rows", [8, 1024])
def test_the_tiles_of_a_tiff_count_as_the_decoder_holds_them(rows: int) -> None:
    image = vips(texture(1024, 1024), "srgb")
    tiled = image.tiffsave_buffer(tile=True, tile_width=1024, tile_height=max(rows, 16))
    plain = image.tiffsave_buffer()
    held = 2 * max(rows, 16) * 1024 * 3
    apart = work(tiled, format="png").cost.memory_bytes - work(plain, format="png").cost.memory_bytes
    assert apart >= held - len(plain) - 2 * 128 * 1024 * 3
