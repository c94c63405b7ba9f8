"""One picture through one network: colours, transparency, ranges, and models that take whole pictures."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.errors import EngineError, InvalidInput
from runtime.jobs import run_inline
from runtime.manifest import Manifest
from runtime.pictures.formats import PixelFormat
from runtime.tensors import Array, TensorSpec
from runtime.tiling.inline import run_picture, run_whole
from runtime.tiling.tiled_picture import TiledPicture

FLOATS = np.dtype(np.float32)


class Network(Engine):
    """Each value to the third power, each pixel `scale` times; `shapes` are those of its inputs, `seen` the values."""

    backend = "numpy"

    def __init__(
        self,
        task: Any = "upscale",
        *,
        channels: tuple[int, int] = (3, 3),
        limits: tuple[float, float] = (-1.0, 1.0),
        **manifest: Any,
    ) -> None:
        specs = [TensorSpec("image", "float32", ("N", count, "H", "W"), limits) for count in channels]
        given: dict[str, Any] = {"tile_sizes": (16,), "halo": 2} | manifest
        super().__init__(
            Bundle(Path(), Manifest("network", task, "float32", (specs[0],), (specs[1],), **given)),
            device="CPU",
            precision="float32",
            slots=1,
            batch_sizes=(1,),
        )
        self.shapes: list[tuple[int, ...]] = []
        self.seen: list[float] = []
        self.images: list[Array] = []

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        image, scale = inputs["image"], self.manifest.scale
        self.shapes.append(image.shape)
        self.seen += [float(image.min()), float(image.max())]
        given = self.manifest.outputs[0].shape[1]
        assert isinstance(given, int)
        # More channels than came: the others are shades of the first.
        shades = [
            image[:, min(index, image.shape[1] - 1)] / (1 + index * (index >= image.shape[1]))
            for index in range(given)
        ]
        return {"image": (np.stack(shades, 1) ** 3).repeat(scale, 2).repeat(scale, 3)}


def noise(channels: int, height: int = 37, width: int = 29) -> Array:
    """[C, H, W] float32 in [0, 1]; an alpha (of 2 or 4 channels) has hidden and opaque parts."""
    values = np.random.default_rng(channels).random((channels, height, width), np.float32)
    if channels in (2, 4):
        values[-1, 5:20, 3:20] = 0
        values[-1, 22:, 8:] = 1
    return values


def cubed(values: Array, scale: int = 1) -> Array:
    power = (2 * values.astype(np.float64) - 1) ** 3
    answer: Array = ((power + 1) / 2).repeat(scale, -2).repeat(scale, -1)
    return answer


def run(
    engine: Engine, planes: Array, *, dtype: Any = FLOATS, band_bytes: int | None = None
) -> tuple[Array, TiledPicture]:
    """The picture's bands one after the other: [C, S·H, S·W] of `dtype`."""
    channels, height, width = planes.shape
    pixel_format = PixelFormat(1 if channels < 3 else 3, alpha=channels in (2, 4), bits=32)
    picture = TiledPicture(
        engine,
        engine.manifest,
        height=height,
        width=width,
        pixel_format=pixel_format,
        dtype=np.dtype(dtype),
        band_bytes=band_bytes,
    )
    rows = []
    for index in range(len(picture.bands)):
        start, stop = picture.rows_needed(index)
        picture.begin(index, planes[:, start:stop])
        run_inline(picture.job(index))
        rows.append(picture.finish(index))
    return np.concatenate(rows).transpose(2, 0, 1), picture


# Ranges.


@pytest.mark.parametrize("scale", [1, 3])
def test_the_network_sees_its_own_range_and_the_caller_zero_to_one(scale: int) -> None:
    engine, image = Network(scale=scale), noise(3)
    answer = run_picture(engine, image)
    np.testing.assert_allclose(answer, cubed(image, scale), atol=1e-6)
    assert -1 <= min(engine.seen) < -0.9
    assert 0.9 < max(engine.seen) <= 1


def test_ranges_may_differ_between_the_ends() -> None:
    engine = Network(limits=(0.0, 1.0))
    signed = replace(engine.manifest.outputs[0], range=(-1.0, 1.0))
    answer = run_picture(engine, noise(3), replace(engine.manifest, outputs=(signed,)))
    np.testing.assert_allclose(answer, (noise(3).astype(np.float64) ** 3 + 1) / 2, atol=1e-6)


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 65535)])
def test_levels_are_those_of_the_converted_values(dtype: Any, most: int) -> None:
    answer, _ = run(Network(), noise(3), dtype=dtype)
    assert answer.dtype == dtype
    assert np.abs(answer - cubed(noise(3)) * most).max() <= 0.5 + 1e-2


def test_a_flat_alpha_stays_exactly_as_it_is_in_any_range() -> None:
    """The network would make 0.27 of it, were it shown."""
    planes = noise(4, 64, 16)
    planes[-1] = np.float32(77 / 255)
    engine = Network()
    answer, picture = run(engine, planes, dtype=np.uint8)
    assert (answer[-1] == 77).all()
    assert len(engine.shapes) == picture.tiles_total // 2


# Transparency.


@pytest.mark.parametrize("channels", [2, 4])
def test_an_upscaler_enlarges_transparency_itself(channels: int) -> None:
    answer, _ = run(Network(scale=2), noise(channels))
    np.testing.assert_allclose(answer[-1], cubed(noise(channels)[-1], 2), atol=1e-6)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("tiled", [True, False])
def test_transparency_goes_beside_a_network_that_translates(channels: int, tiled: bool) -> None:
    whole: dict[str, Any] = (
        {} if tiled else {"tiled": False, "max_whole_px": 10**6, "tile_sizes": (), "halo": 0}
    )
    engine, planes = Network("translate", **whole), noise(channels)
    answer, picture = run(engine, planes)
    np.testing.assert_array_equal(answer[-1], planes[-1])
    assert len(engine.shapes) == picture.tiles_total == sum(len(band) for band in picture.bands)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_transparency_beside_the_network_is_enlarged_with_it(scale: int) -> None:
    """Linear: a ramp stays a ramp, pixels' centres keep their places, and opaque stays exactly opaque."""
    planes = noise(4, 24, 40)
    planes[-1] = np.linspace(0.1, 0.9, 40, dtype=np.float32)
    planes[-1, 12:] = 1
    answer, _ = run(Network("translate", scale=scale), planes)
    assert answer.shape == (4, 24 * scale, 40 * scale)
    centres = (np.arange(40 * scale) + 0.5) / scale - 0.5
    ramp = np.interp(centres, np.arange(40), np.linspace(0.1, 0.9, 40))
    np.testing.assert_allclose(answer[-1, 0], ramp, atol=1e-6)
    assert (answer[-1, 13 * scale :] == 1).all()


@pytest.mark.parametrize("task", ["upscale", "translate"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [1, 3])
def test_bands_are_the_same_picture(task: str, channels: int, scale: int) -> None:
    engine, planes = Network(task, scale=scale), noise(channels, 150, 40)
    (whole, in_one_band), (stacked, in_many_bands) = run(engine, planes), run(engine, planes, band_bytes=1)
    assert (len(in_one_band.bands), len(in_many_bands.bands)) == (1, 13)
    np.testing.assert_array_equal(stacked, whole)


# Colours.


def test_an_upscaler_keeps_grey_grey() -> None:
    answer, _ = run(Network(), noise(1))
    np.testing.assert_allclose(answer, cubed(noise(1)), atol=1e-6)


def test_a_translator_gives_grey_pictures_its_own_colours() -> None:
    engine = Network("translate", channels=(1, 3))
    answer, _ = run(engine, noise(1))
    assert answer.shape[0] == 3
    assert not np.allclose(answer[0], answer[2])
    assert {shape[1] for shape in engine.shapes} == {1}
    in_colour, _ = run(Network("translate"), noise(1))
    np.testing.assert_allclose(in_colour, np.broadcast_to(cubed(noise(1)), in_colour.shape), atol=1e-6)


def test_a_network_of_grey_is_shown_each_colour_by_itself() -> None:
    engine = Network(channels=(1, 1))
    answer, _ = run(engine, noise(3))
    np.testing.assert_allclose(answer, cubed(noise(3)), atol=1e-6)


def test_a_translator_of_grey_refuses_colours() -> None:
    with pytest.raises(EngineError, match="takes 1 channels and gives 3, got a picture of 3"):
        run(Network("translate", channels=(1, 3)), noise(3))


# Pictures that must not be cut.


@pytest.mark.parametrize("task", ["upscale", "translate"])
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_model_that_cannot_be_tiled_sees_the_whole_picture_padded_to_its_size_rule(
    task: str, multiple: int
) -> None:
    engine = Network(task, tiled=False, tile_sizes=(), halo=0, max_whole_px=40 * 32, size_multiple=multiple)
    answer, picture = run(engine, noise(3), band_bytes=1)
    np.testing.assert_allclose(answer, cubed(noise(3)), atol=1e-6)
    assert engine.shapes == [(1, 3, 37, 29)] if multiple == 1 else [(1, 3, 40, 32)]
    assert picture.computed_px == engine.shapes[0][2] * engine.shapes[0][3]


@pytest.mark.parametrize(("height", "width"), [(38, 29), (29, 38), (1, 2000)])
def test_a_larger_picture_is_refused_with_the_number(height: int, width: int) -> None:
    engine = Network(tiled=False, tile_sizes=(), halo=0, max_whole_px=37 * 29)
    with pytest.raises(InvalidInput, match=r"network cannot be tiled and takes at most 1073") as refused:
        run_picture(engine, noise(3, height, width))
    assert refused.value.field == "image"
    assert not engine.shapes


WHOLE: dict[str, Any] = {"tiled": False, "tile_sizes": (), "halo": 0, "max_whole_px": 10**5}
TILED: dict[str, Any] = {"tile_sizes": (16, 24), "halo": 1}


class Surroundings(Network):
    """Each pixel's mean with the pixels before and after it, mirrored at the edges of what the network sees."""

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.shapes.append(inputs["image"].shape)
        self.images.append(inputs["image"])
        return {"image": surroundings(inputs["image"])}


def surroundings(image: Array) -> Array:
    """[N, C, H, W] → the same shape."""
    around = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    height, width = image.shape[2:]
    squares = [around[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    means: Array = np.stack(squares).mean(axis=0)
    return means


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([1, 3, 4]),
    multiple=st.sampled_from([1, 2, 4, 8]),
    least=st.integers(2, 8),
    sizes=st.sampled_from([WHOLE, TILED]),
    band_bytes=st.sampled_from([None, 1]),
)
def test_a_picture_of_any_size_is_answered_as_its_reflection_is_and_cut(
    height: int, width: int, channels: int, multiple: int, least: int, sizes: Any, band_bytes: int | None
) -> None:
    """In one window or in tiles, at once or in bands, which see the same rows."""
    engine = Surroundings(
        "translate",
        limits=(0.0, 1.0),
        size_multiple=multiple,
        least_side_px=least,
        padding="reflect",
        **sizes,
    )
    planes = np.random.default_rng(height * 41 + width).random((channels, height, width), np.float32)
    planes[3:] = 1
    answer, picture = run(engine, planes, band_bytes=band_bytes)
    grown = [-(-max(side, least) // multiple) * multiple for side in (height, width)]
    padded = np.pad(
        planes,
        ((0, 0), *((0, to - side) for to, side in zip(grown, (height, width), strict=True))),
        "reflect",
    )
    expected = surroundings(padded[None])[0, :3, :height, :width]
    np.testing.assert_allclose(answer[:3], np.broadcast_to(expected, (3, height, width)), atol=1e-6)
    assert picture.computed_px == sum(shape[2] * shape[3] for shape in engine.shapes)
    if sizes is WHOLE:
        assert [shape[2:] for shape in engine.shapes] == [tuple(grown)]


def test_the_last_band_mirrors_rows_of_the_band_above_it() -> None:
    """Its tiles have one row of the picture, and seven of padding."""
    engine = Surroundings(size_multiple=8, padding="reflect", tile_sizes=(8,), halo=0)
    planes = noise(3, 17, 8)
    run(engine, planes, band_bytes=1)
    padded = 2 * np.pad(planes, ((0, 0), (0, 7), (0, 0)), "reflect") - 1
    np.testing.assert_allclose(np.concatenate(engine.images, 2)[0], padded, atol=1e-6)


def test_padding_counts_against_the_limit_of_whole_pictures() -> None:
    """A line of pixels is as much work as the picture that it is padded to."""
    engine = Network(tiled=False, tile_sizes=(), halo=0, max_whole_px=1024, least_side_px=30, size_multiple=4)
    assert run(engine, noise(3, 1, 1))[1].computed_px == 32 * 32
    with pytest.raises(InvalidInput, match=r"33×1, padded to 36×32, is 1152 pixels; .* at most 1024"):
        run_picture(engine, noise(3, 1, 33))


def test_run_whole_uses_a_single_window_whatever_the_tile_sizes() -> None:
    engine = Network()
    np.testing.assert_allclose(run_whole(engine, noise(3)), cubed(noise(3)), atol=1e-6)
    assert engine.shapes == [(1, 3, 37, 29)]


# What admission counts.


def test_the_cost_counts_halos_and_every_run_of_the_network() -> None:
    engine = Network()
    planes = np.random.default_rng(0).random((4, 64, 64), np.float32)  # no tile is flat
    _, picture = run(engine, planes)
    assert picture.computed_px == sum(shape[2] * shape[3] for shape in engine.shapes)
    assert picture.tiles_total == len(engine.shapes)


def test_every_tile_is_reported_once() -> None:
    engine, planes = Network(), noise(3, 64, 64)
    picture = TiledPicture(
        engine,
        engine.manifest,
        height=64,
        width=64,
        pixel_format=PixelFormat(3, bits=32),
        dtype=FLOATS,
    )
    reports: list[tuple[int, int]] = []
    picture.begin(0, planes)
    run_inline(picture.job(0, on_tiles_done=lambda done, total: reports.append((done, total))))
    assert reports == [(done, 25) for done in range(1, 26)]


def test_the_bands_of_a_picture_share_the_turns_of_a_request() -> None:
    engine, planes = Network(), noise(3, 64, 64)
    picture = TiledPicture(
        engine,
        engine.manifest,
        height=64,
        width=64,
        pixel_format=PixelFormat(3, bits=32),
        dtype=FLOATS,
        band_bytes=1,
    )
    flows = []
    for index in range(2):
        start, stop = picture.rows_needed(index)
        picture.begin(index, planes[:, start:stop])
        flows.append(picture.job(index).flow)
    assert flows[0] is flows[1]


def test_a_picture_of_a_million_tiles_takes_no_memory_before_it_begins() -> None:
    """As a 65 kB PNG of 67108864×1 pixels is. Listing its tiles held every other request up for seconds."""
    tracemalloc.start()
    try:
        picture = TiledPicture(
            Network(scale=4),
            Network(scale=4).manifest,
            height=1,
            width=2**26,
            pixel_format=PixelFormat(3, alpha=True),
            dtype=np.dtype(np.uint8),
            band_bytes=2**26,
        )
        counts = (len(picture.bands), picture.tiles_total, picture.rows_needed(0), len(picture.bands[0]))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counts[0] == 1
    assert counts[1] > 10**7
    assert most_bytes < 2**20
