"""The search for tile and halo, on engines whose reach and speed are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from export.build import tiles
from export.families.spec import Signature
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.tensors import Array, TensorSpec

IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
UPSCALED = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))


class Blur(Engine):
    """A box blur that sees `reach` pixels around each pixel, zeros beyond the edge as a convolution has."""

    backend = "blur"

    def __init__(self, reach: int, multiple: int = 1) -> None:
        manifest = Manifest("blur", "upscale", "float32", (IMAGE,), (UPSCALED,), size_multiple=multiple)
        super().__init__(
            Bundle(Path(), manifest), device="CPU", precision="float32", slots=1, batch_sizes=(1,)
        )
        self.reach = reach
        self.sizes: set[tuple[int, ...]] = set()

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        image = inputs["image"]
        self.sizes.add(image.shape[2:])
        side = 2 * self.reach + 1
        padded = np.pad(image, ((0, 0), (0, 0), (self.reach,) * 2, (self.reach,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
        return {"upscaled": windows.mean(axis=(4, 5))}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TIMED_S", 0.0)
    monkeypatch.setattr(tiles, "TILES", (96, 128))


@pytest.mark.parametrize(("reach", "halo"), [(0, 4), (4, 4), (5, 6), (12, 12)])
def test_the_halo_is_the_least_that_covers_the_reach(reach: int, halo: int) -> None:
    engine = Blur(reach)
    choice = tiles.choose(engine, engine)
    assert choice.halo == halo
    assert choice.good
    assert {entry["tile"] for entry in choice.tiles} == {96, 128}


def test_the_tile_with_the_least_time_per_useful_pixel_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Blur(4)
    seconds = {96: 1.0, 128: 1.9}  # 7744 and 14400 useful pixels at halo 4: 129 and 132 µs each
    monkeypatch.setattr(tiles._Search, "_time", lambda _self, tile: seconds[tile])
    assert tiles.choose(engine, engine).sizes == (96,)
    seconds[128] = 1.75  # 122 µs: about as fast, and a request would wait longer for it
    assert tiles.choose(engine, engine).sizes == (96,)
    seconds[128] = 1.6
    assert tiles.choose(engine, engine).tile == 128
    assert tiles.choose(engine, engine).sizes == (96, 128)


def test_what_the_user_gives_is_measured_and_kept() -> None:
    engine = Blur(12)
    choice = tiles.choose(engine, engine, tile=40, halo=6)
    assert (choice.tile, choice.halo, choice.good) == (40, 6, False)
    assert choice.close.psnr_db < tiles.REQUIRED_DB
    assert tiles.choose(engine, engine, tile=64).halo == 12
    assert tiles.choose(engine, engine, halo=16).halo == 16


def test_where_no_halo_is_enough_the_largest_is_taken_and_said_to_be_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "HALOS", (4, 6, 8))
    engine = Blur(12)
    choice = tiles.choose(engine, engine)
    assert (choice.halo, choice.good) == (8, False)


def test_windows_keep_the_size_rule() -> None:
    engine = Blur(3, multiple=4)
    tiles.choose(engine, engine)
    assert all(side % 4 == 0 for size in engine.sizes for side in size)


@pytest.mark.parametrize(
    ("multiple", "tile", "halo", "field"),
    [
        (1, 0, None, "tile"),
        (1, -64, None, "tile"),
        (4, 66, None, "tile"),
        (1, 8, None, "tile"),
        (1, 64, 32, "halo"),
        (1, 64, -1, "halo"),
        (1, None, 1000, "halo"),
    ],
)
def test_tiles_that_cannot_work_are_refused(
    multiple: int, tile: int | None, halo: int | None, field: str
) -> None:
    signature = Signature((IMAGE,), (UPSCALED,), size_multiple=multiple)
    with pytest.raises(InvalidInput) as refused:
        tiles.check(signature, tile, halo)
    assert refused.value.field == field
