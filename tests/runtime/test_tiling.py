"""Tiles: cores cover each pixel once, halos are kept, and stitched tiles equal the whole picture."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import InvalidInput
from runtime.manifest import Manifest
from runtime.tensors import TensorSpec
from runtime.tiling.canvas import Canvas
from runtime.tiling.geometry import Span, Tile, bands, choose_tile, computed_px, cut, split
from runtime.tiling.inline import run_picture
from runtime.tiling.padding import pad, rows_read

UNIT = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0, 1))
SIGNED = TensorSpec("image", "float32", ("N", 3, "H", "W"), (-1, 1))


def tiles_of(height: int, width: int, *, tile: int, halo: int, multiple: int = 1) -> list[Tile]:
    manifest = Manifest(
        "m", "upscale", "float32", (UNIT,), (UNIT,), 1, multiple, tile_sizes=(tile,), halo=halo
    )
    return [part for band in bands(*cut(height, width, manifest)) for part in band.tiles]


@st.composite
def axes(draw: st.DrawFn, longest: int = 600) -> tuple[int, int, int, int]:
    """(length, tile, halo, multiple) that fit each other."""
    multiple = draw(st.sampled_from([1, 2, 3, 4, 8]))
    tile = draw(st.integers(1, 24)) * multiple
    halo = draw(st.integers(0, (tile - multiple) // 2))
    length = draw(st.integers(1, longest // multiple)) * multiple
    return length, tile, halo, multiple


@given(axes())
def test_cores_cover_the_axis_once_and_keep_the_halo(axis: tuple[int, int, int, int]) -> None:
    length, tile, halo, multiple = axis
    spans = list(split(length, tile=tile, halo=halo, multiple=multiple))
    assert [span.low for span in spans] == [0, *(span.high for span in spans[:-1])]
    assert spans[-1].high == length
    for span in spans:
        assert 0 <= span.start <= span.low < span.high <= span.stop <= length
        assert span.stop - span.start == min(tile, length)
        assert span.start % multiple == span.stop % multiple == 0
        assert span.start == 0 or span.low - span.start >= halo
        assert span.stop == length or span.stop - span.high >= halo


@given(axes())
def test_there_are_no_more_windows_than_the_halo_needs(axis: tuple[int, int, int, int]) -> None:
    length, tile, halo, multiple = axis
    windows = split(length, tile=tile, halo=halo, multiple=multiple)
    # Walk greedily: each window starts as far along as its halo and the multiple allow.
    start, fewest = 0, 1
    while start + tile < length:
        start += (tile - 2 * halo) // multiple * multiple
        fewest += 1
    assert len(windows) == fewest


@given(axes())
def test_overlaps_are_spread_evenly(axis: tuple[int, int, int, int]) -> None:
    length, tile, halo, multiple = axis
    spans = list(split(length, tile=tile, halo=halo, multiple=multiple))
    gaps = [after.start - before.start for before, after in pairwise(spans)]
    assert not gaps or max(gaps) - min(gaps) <= multiple


@given(axes(120), axes(120))
def test_a_plan_covers_every_pixel_exactly_once(
    rows: tuple[int, int, int, int], columns: tuple[int, int, int, int]
) -> None:
    _, tile, halo, multiple = rows
    height, width = rows[0], columns[0] * multiple
    seen = np.zeros((height, width), np.int64)
    tiles = tiles_of(height, width, tile=tile, halo=halo, multiple=multiple)
    for part in tiles:
        seen[part.rows.low : part.rows.high, part.columns.low : part.columns.high] += 1
        assert part.pixels == part.height * part.width <= tile * tile
    assert (seen == 1).all()
    assert sum(part.pixels for part in tiles) == computed_px(
        height, width, tile=tile, halo=halo, multiple=multiple
    )
    assert tiles == sorted(tiles, key=lambda part: (part.rows.low, part.columns.low))


@given(axes(200), axes(60), st.none() | st.integers(0, 250))
def test_counts_and_sizes_are_those_of_the_tiles_listed(
    rows: tuple[int, int, int, int], columns: tuple[int, int, int, int], most_rows: int | None
) -> None:
    _, tile, halo, multiple = rows
    sides = [
        split(side, tile=tile, halo=halo, multiple=multiple) for side in (rows[0], columns[0] * multiple)
    ]
    planned = bands(sides[0], sides[1], most_rows)
    listed = list(planned)
    tiles = [part for band in listed for part in band.tiles]
    assert tiles == [Tile(row, column) for row in sides[0] for column in sides[1]]
    assert planned.tiles == len(tiles) == sum(len(band) for band in listed)
    assert planned.computed_px == sum(part.pixels for part in tiles)
    for band in listed:
        of_band = list(band.tiles)
        assert (band.low, band.high) == (of_band[0].rows.low, of_band[-1].rows.high)
        assert (band.start, band.stop) == (of_band[0].rows.start, of_band[-1].rows.stop)
        assert band.stop - band.start <= planned.most_rows
        one_row = band.last - band.first == 1
        assert most_rows is None or one_row or band.high - band.low <= most_rows


def test_nothing_lists_the_tiles_of_a_picture_before_it_is_admitted() -> None:
    """2^40 of them would take years and terabytes."""
    sides = [split(2**20 * 80 + 96, tile=96, halo=8) for _ in range(2)]
    planned = bands(sides[0], sides[1], 10**6)
    assert planned.tiles == (2**20 + 1) ** 2
    assert planned.computed_px == planned.tiles * 96**2
    assert planned[len(planned) // 2][10**6].columns.low == sides[1][10**6].low


@pytest.mark.parametrize("side", [1, 5, 63, 64])
def test_a_side_no_longer_than_the_tile_is_one_window_of_its_own_length(side: int) -> None:
    assert list(split(side, tile=64, halo=31)) == [Span(0, side, 0, side)]


def test_one_pixel_more_than_the_tile_makes_two_windows_on_the_edges() -> None:
    assert list(split(65, tile=64, halo=16)) == [Span(0, 64, 0, 32), Span(1, 65, 32, 65)]


@pytest.mark.parametrize(
    "bad",
    [
        {"length": 0},
        {"length": -3},
        {"tile": 0},
        {"halo": -1},
        {"halo": 32},
        {"halo": 1000},
        {"multiple": 0},
        {"length": 101, "multiple": 2},
        {"tile": 63, "multiple": 2},
    ],
)
def test_impossible_tile_sizes_are_invalid_input(bad: dict[str, int]) -> None:
    given_values = {"length": 100, "tile": 64, "halo": 8, "multiple": 1, **bad}
    with pytest.raises(InvalidInput):
        split(given_values.pop("length"), **given_values)


@given(
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.lists(st.integers(33, 512), min_size=1, max_size=4),
    st.integers(0, 16),
)
def test_the_chosen_tile_has_the_least_work(
    height: int, width: int, tile_sizes: list[int], halo: int
) -> None:
    chosen = choose_tile(height, width, tile_sizes=tile_sizes, halo=halo)
    costs = [computed_px(height, width, tile=tile, halo=halo) for tile in tile_sizes]
    assert chosen == tile_sizes[costs.index(min(costs))]


@st.composite
def padded_cases(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A small picture, [2, H, W], and a size rule."""
    rule = {
        "size_multiple": draw(st.integers(1, 8)),
        "least_side_px": draw(st.integers(1, 20)),
        "padding": draw(st.sampled_from(["edge", "reflect"])),
    }
    shape = st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9))
    return draw(arrays.arrays(np.float32, shape)), rule


def walked(length: int, padded: int, padding: str) -> list[int]:
    """The pixels of an axis that a walk along it passes: at its end it stops ("edge") or turns round ("reflect")."""
    places, step = [0], 1
    while len(places) < padded:
        if not 0 <= places[-1] + step < length:
            step = -step if padding == "reflect" and length > 1 else 0
        places.append(places[-1] + step)
    return places


@given(padded_cases())
def test_a_padded_picture_has_a_size_that_the_network_takes(case: tuple[Any, dict[str, Any]]) -> None:
    image, rule = case
    _, height, width = image.shape
    manifest = Manifest("m", "upscale", "float32", (UNIT,), (UNIT,), **rule)
    rows, columns = (axis.length for axis in cut(height, width, manifest))
    padded = pad(image, rows - height, columns - width, manifest.padding)
    assert padded.shape == (2, rows, columns)
    for side, grown in ((height, rows), (width, columns)):
        assert grown % manifest.size_multiple == 0
        least = max(side, manifest.least_side_px)
        assert least <= grown < least + manifest.size_multiple
    down, across = walked(height, rows, manifest.padding), walked(width, columns, manifest.padding)
    np.testing.assert_array_equal(padded, image[:, down][:, :, across])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40), st.sampled_from(["edge", "reflect"]))
def test_the_rows_read_for_a_band_are_those_that_its_windows_show(
    height: int, length: int, beyond: int, padding: Any
) -> None:
    stop = height + beyond
    start = max(stop - length, 0)
    first, last = rows_read(start, stop, height, padding)
    shown = walked(height, stop, padding)[start:]
    assert 0 <= first <= min(shown)
    assert max(shown) < last <= height
    if not beyond:
        assert (first, last) == (start, stop)


# Whole images through a network, tile by tile.


class Local(Engine):
    """A network that only looks `radius` pixels around: nearest-neighbour enlargement, then a mean over a square.

    Beyond the window it sees zeros, as a convolution's padding does.
    """

    backend = "test"

    def __init__(self, *, scale: int = 1, radius: int = 0, multiple: int = 1) -> None:
        manifest = Manifest("local", "upscale", "float32", (UNIT,), (UNIT,), scale, multiple)
        super().__init__(
            Bundle(Path("none"), manifest), device="CPU", precision="float32", slots=1, batch_sizes=(1,)
        )
        self.radius, self.shapes = radius, set[tuple[int, ...]]()

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        image = inputs["image"].astype(np.float64)
        self.shapes.add(image.shape[2:])
        assert all(side % self.manifest.size_multiple == 0 for side in image.shape[2:])
        around, (height, width) = self.radius, image.shape[2:]
        padded = np.pad(image, ((0, 0), (0, 0), (around, around), (around, around)))
        reach = range(2 * around + 1)
        total: Any = sum(padded[:, :, y : y + height, x : x + width] for y in reach for x in reach)
        scale = self.manifest.scale
        return {"image": (total / len(reach) ** 2).repeat(scale, 2).repeat(scale, 3).astype(np.float32)}


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 4),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 3),
    st.integers(2, 6),
)
def test_the_stitched_picture_equals_the_whole_one(
    height: int, width: int, scale: int, multiple: int, radius: int, tiles: int
) -> None:
    """Exact, not close: with a halo as wide as the network looks, every pixel sees the very same numbers."""
    tile = tiles * 4
    assume(tile - 2 * radius >= multiple)
    image = np.random.default_rng(height * 71 + width).random((3, height, width), np.float32)
    engine = Local(scale=scale, radius=radius, multiple=multiple)
    padded = pad(image, -height % multiple, -width % multiple, "edge")
    whole = engine.run({"image": padded[None]})["image"][0][:, : height * scale, : width * scale]
    stitched = run_picture(engine, image, replace(engine.manifest, tile_sizes=(tile,), halo=radius))
    assert stitched.shape == (3, height * scale, width * scale)
    assert stitched.dtype == np.float32
    np.testing.assert_array_equal(stitched, whole)


def test_a_halo_narrower_than_the_receptive_field_is_visible() -> None:
    """Proof that the test above can fail."""
    image = np.random.default_rng(0).random((3, 40, 40), np.float32)
    engine = Local(radius=3)
    whole = engine.run({"image": image[None]})["image"][0]
    tiled = replace(engine.manifest, tile_sizes=(16,), halo=2)
    assert not np.array_equal(run_picture(engine, image, tiled), whole)


def test_windows_have_the_tiles_shape_or_a_shorter_side() -> None:
    engine = Local()
    tiled = replace(engine.manifest, tile_sizes=(32,), halo=4)
    run_picture(engine, np.zeros((3, 7, 100), np.float32), tiled)
    assert engine.shapes == {(7, 32)}


# The canvas.


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("size", [(5, 7), (33, 17), (1, 1), (32, 32)])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_a_canvas_takes_the_tiles_of_a_padded_image_and_cuts_the_padding(
    kind: Any, size: tuple[int, int], multiple: int
) -> None:
    scale, (height, width) = 2, size
    image = np.random.default_rng(1).integers(0, 256, (3, height, width)).astype(np.float32) / 255
    padded = pad(image, -height % multiple, -width % multiple, "edge")
    canvas = Canvas(channels=3, height=height, width=width, scale=scale, output=UNIT, dtype=kind)
    for part in reversed(tiles_of(*padded.shape[1:], tile=16, halo=4, multiple=multiple)):
        canvas.paste(part, part.window(padded).repeat(scale, 1).repeat(scale, 2))
    expected = image.repeat(scale, 1).repeat(scale, 2).transpose(1, 2, 0)
    assert canvas.pixels.dtype == kind
    if kind == "uint8":
        np.testing.assert_array_equal(canvas.pixels, np.rint(expected * 255))
    else:
        np.testing.assert_array_equal(canvas.pixels, expected)


def test_a_core_that_is_padding_only_changes_nothing() -> None:
    canvas = Canvas(channels=3, height=2, width=2, scale=1, output=UNIT)
    canvas.pixels[:] = 7
    beyond = SimpleNamespace(rows=Span(2, 4, 2, 4), columns=Span(0, 2, 0, 2))
    canvas.paste(beyond, np.ones((3, 2, 2), np.float32))  # type: ignore[arg-type]
    assert (canvas.pixels == 7).all()


def test_a_uint8_canvas_clips_and_a_float_canvas_does_not() -> None:
    (tile,) = tiles_of(1, 3, tile=8, halo=0)
    values = np.array([[[-2.0, 0.5, 9.0]]], np.float32)
    for kind, expected in (("uint8", [0, 191, 255]), ("float32", [-0.5, 0.75, 5.0])):
        canvas = Canvas(channels=1, height=1, width=3, scale=1, output=SIGNED, dtype=kind)
        canvas.paste(tile, values)
        assert canvas.pixels[0, :, 0].tolist() == expected


def test_pasting_leaves_the_network_s_output_as_it_was() -> None:
    (tile,) = tiles_of(2, 2, tile=8, halo=0)
    output = np.full((1, 2, 2), 0.3, np.float32)
    Canvas(channels=1, height=2, width=2, scale=1, output=UNIT).paste(tile, output)
    assert (output == np.float32(0.3)).all()
