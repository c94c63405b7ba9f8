"""Tests of the search for tile and halo, on fake engines with a known receptive field and speed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.build import photographs, tiles
from export.families.spec import Signature
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.tensors import Array, TensorSpec

IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
UPSCALED = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))


class Network(Engine):
    """A function of [1, 3, H, W] as an engine. cost_s: of one run, by the side of its window, on a clock of its own."""

    backend = "function"

    def __init__(
        self,
        function: Callable[[Array], Array],
        *,
        multiple: int = 1,
        cost_s: Callable[[int], float] = lambda side: 1e-6 * side * side,
        value_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        image, upscaled = (replace(spec, range=value_range) for spec in (IMAGE, UPSCALED))
        manifest = Manifest("function", "upscale", "float32", (image,), (upscaled,), size_multiple=multiple)
        super().__init__(
            Bundle(Path(), manifest), device="CPU", precision="float32", slots=1, batch_sizes=(1,)
        )
        self.function, self.cost_s = function, cost_s
        self.windows: list[Array] = []
        self.now_s = 0.0

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        image = inputs["image"]
        self.windows.append(image)
        self.now_s += self.cost_s(image.shape[3])
        return {"upscaled": self.function(image)}

    def choose(self, **given: int) -> tiles.Choice:
        return tiles.choose(self, self, clock=lambda: self.now_s, **given)


def blur(reach: int) -> Callable[[Array], Array]:
    """A box blur that sees `reach` pixels around each pixel, zeros beyond the edge as a convolution has."""

    def function(image: Array) -> Array:
        side = 2 * reach + 1
        padded = np.pad(image, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
        return windows.mean(axis=(4, 5))

    return function


@pytest.fixture(autouse=True)
def few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TIMED_S", 1e-9)  # one round of each
    monkeypatch.setattr(tiles, "TILES", (96, 128))


@pytest.mark.parametrize(("reach", "halo"), [(0, 4), (4, 4), (5, 6), (12, 12)])
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_the_halo_is_the_least_that_covers_the_reach(
    reach: int, halo: int, value_range: tuple[float, float]
) -> None:
    choice = Network(blur(reach), value_range=value_range).choose()
    assert choice.halo == halo
    assert choice.good
    assert {row["tile"] for row in choice.tiles} == {96, 128}


def test_the_tile_with_the_least_time_per_useful_pixel_wins() -> None:
    seconds = {96: 1.0, 128: 1.9}  # 7744 and 14400 useful pixels at halo 4: 129 and 132 µs each
    network = Network(blur(4), cost_s=lambda side: seconds.get(side, 0.001))
    choice = network.choose()
    assert choice.sizes == (96,)
    assert choice.tiles[0] == {"tile": 96, "ms": 1000.0, "ns_per_useful_px": round(1e9 / 88**2, 1)}
    seconds[128] = 1.75  # 122 µs: about as fast, and a request would wait longer for it
    assert network.choose().sizes == (96,)
    seconds[128] = 1.6
    assert network.choose().tile == 128
    assert network.choose().sizes == (96, 128)


def test_one_pixel_that_is_far_off_is_a_seam() -> None:
    """The maximum counts beside PSNR, which stays above 70 dB here."""

    def marked(image: Array) -> Array:
        output = image.copy()
        output[:, :, 10, 10] += 3 / 255  # ten pixels from every window's corner, and from the whole image's
        return output

    choice = Network(marked).choose()
    assert choice.halo == 12
    too_narrow = next(row for row in choice.halos if row["halo"] == 10)
    assert too_narrow["psnr_db"] > 70


def test_many_pixels_that_are_a_little_off_are_a_seam() -> None:
    """PSNR counts beside the maximum: no pixel is off by more than 0.32 of 256 levels, and all are, which is 58 dB."""

    def depends_on_size(image: Array) -> Array:
        return image + np.float32(0.00125 * (image.shape[3] in (96, 128)))

    choice = Network(depends_on_size).choose()
    assert choice.close.max_abs < tiles.REQUIRED_MAX
    assert choice.close.psnr_db == pytest.approx(58.06, abs=0.1)
    assert (choice.halo, choice.good) == (max(tiles.HALOS), False)


def test_every_photograph_is_compared() -> None:
    network = Network(blur(4))
    network.choose()
    for name in photographs.NAMES:
        side = 96 + 88  # two windows of 96 with a halo of 4
        crop = photographs.crop(side, side, name=name)
        assert any(np.array_equal(window[0], crop) for window in network.windows)


def test_a_slow_network_is_measured_on_one_photograph() -> None:
    network = Network(blur(4), cost_s=lambda side: 1e-4 * side * side)
    network.choose()
    seen = {float(window.sum()) for window in network.windows}
    other = photographs.crop(184, 184, name=photographs.NAMES[1])
    assert float(other[None].sum()) not in seen
    assert network.now_s < 4 * tiles.BUDGET_S


def test_seams_that_only_the_larger_picture_shows_widen_the_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    texture = np.random.default_rng(0).random((3, 256, 256), dtype=np.float32)

    def crop(height: int, width: int, **_: object) -> Array:
        return texture[:, :height, :width] * np.float32(width > 200)  # the probe at tile 96 sees black

    monkeypatch.setattr(photographs, "crop", crop)
    seconds = {96: 1.0, 128: 1.0}
    choice = Network(blur(5), cost_s=lambda side: seconds.get(side, 0.001)).choose()
    assert (choice.tile, choice.halo, choice.good) == (128, 6, True)
    assert [(row["tile"], row["halo"]) for row in choice.halos][-2:] == [(128, 4), (128, 6)]


def test_what_the_user_gives_is_measured_and_kept() -> None:
    network = Network(blur(12))
    choice = network.choose(tile=40, halo=6)
    assert (choice.tile, choice.halo, choice.good) == (40, 6, False)
    assert choice.close.psnr_db < tiles.REQUIRED_DB
    assert network.choose(tile=64).halo == 12
    assert network.choose(halo=16).halo == 16


def test_if_every_halo_shows_seams_the_largest_is_taken_and_not_called_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "HALOS", (4, 6, 8))
    choice = Network(blur(12)).choose()
    assert (choice.halo, choice.good) == (8, False)


def test_windows_keep_the_size_rule() -> None:
    network = Network(blur(3), multiple=3)
    choice = network.choose()
    assert choice.sizes == (96,)  # 128 is no multiple of 3
    assert all(side % 3 == 0 for window in network.windows for side in window.shape[2:])
    # 96 - 2·4 leaves 88 pixels, of which 87 are a multiple of 3.
    assert choice.tiles[0]["ns_per_useful_px"] == round(1e3 * 96**2 / 87**2, 1)
    crop = photographs.crop(96 + 87, 96 + 87)
    assert any(np.array_equal(window[0], crop) for window in network.windows)


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
