"""Pictures computed in many bands: equal to those in one band, and nothing is left behind after a failure."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from protos import ganforge_pb2 as pb
from runtime.picture_work import PictureWork
from runtime.pictures.formats import WRITABLE
from runtime.pictures.reading import open_picture
from runtime.tensors import Array
from runtime.tiling import geometry
from runtime.tiling.geometry import Bands
from tests.server.conftest import (
    FakeUpscaler,
    Serve,
    Served,
    decoded,
    expected,
    levels_apart,
    png,
    refusal,
    until,
)
from tests.server.kinds import saved, vips, waves
from tests.server.test_pictures import read_back

# So little that each row of tiles of the pictures below is a band of its own.
SMALL_BAND_BYTES = 4096
BITS: dict[int, Any] = {8: np.uint8, 16: np.uint16, 32: np.float32}
WORDS = {8: ("b-w", "srgb"), 16: ("grey16", "rgb16"), 32: ("b-w", "scrgb")}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files lie where those of other processes do not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def many_bands(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cut small pictures into many bands, as large ones are. Returns a list that gets the number of bands of each."""
    band_counts: list[int] = []
    plan = geometry.bands

    def counted(*arguments: Any) -> Bands:
        planned = plan(*arguments)
        band_counts.append(len(planned))
        return planned

    monkeypatch.setattr("runtime.picture_work.BAND_BYTES", SMALL_BAND_BYTES)
    monkeypatch.setattr("runtime.tiling.tiled_picture.bands", counted)
    return band_counts


def textured(channels: int, bits: int, height: int = 110, width: int = 61) -> Array:
    """[H, W, C]: slopes with some noise; where there is alpha, with hidden and with opaque parts."""
    noise = np.random.default_rng(channels * bits).random((height, width, channels))
    values = waves(channels, height, width) * 0.8 + noise * 0.2
    if channels in (2, 4):
        values[30:75, 10:40, -1] = 0
        values[70:, 20:, -1] = 1
        values[:20, 20:, -1] = noise[:20, 20:, -1] > 0.9
    most = 1 if bits == 32 else np.iinfo(BITS[bits]).max
    return (values * most if bits == 32 else np.rint(values * most)).astype(BITS[bits])


def file_of(channels: int, bits: int, format: str = "tiff", **options: Any) -> bytes:
    image = vips(textured(channels, bits), WORDS[bits][channels > 2])
    return image.write_to_buffer(f".{format}", **options)


def both_ways(served: Served, file: bytes, band_counts: list[int], **options: Any) -> tuple[bytes, bytes]:
    """The answers computed in one band and in many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.picture_work.BAND_BYTES", 2**30)
        in_one_band = served.client.upscale(file, **options).image
    assert band_counts[-1] == 1
    in_many_bands = served.client.upscale(file, **options).image
    assert band_counts[-1] > 1
    return in_one_band, in_many_bands


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_picture_computed_in_bands_is_the_same(
    served: Served, many_bands: list[int], channels: int, bits: int, format: str
) -> None:
    file = file_of(channels, bits)
    for outscale in (None, 0.3, 2.6, 5.5):
        in_one_band, in_many_bands = both_ways(served, file, many_bands, format=format, outscale=outscale)
        depth = min(bits, WRITABLE[format].bits)
        np.testing.assert_array_equal(read_back(in_one_band, depth), read_back(in_many_bands, depth))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_of_a_picture_that_is_set_upright(
    served: Served, many_bands: list[int], orientation: int
) -> None:
    image = vips(textured(3, 8), "srgb").copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    in_one_band, in_many_bands = both_ways(served, image.tiffsave_buffer(), many_bands)
    assert in_one_band == in_many_bands


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("png", {}),
        ("png", {"interlace": True}),
        ("jpeg", {}),
        ("jpeg", {"interlace": True}),
        ("webp", {}),
        ("gif", {}),
        ("tiff", {"tile": True, "tile_width": 32, "tile_height": 32}),
        ("tiff", {"tile_height": 7}),  # of a strip
    ],
)
def test_bands_of_files_decoded_by_rows_and_as_a_whole(
    served: Served, many_bands: list[int], format: str, options: dict[str, Any]
) -> None:
    in_one_band, in_many_bands = both_ways(served, file_of(3, 8, format, **options), many_bands, format="png")
    assert in_one_band == in_many_bands


def test_bands_of_a_bitmap(served: Served, many_bands: list[int]) -> None:
    in_one_band, in_many_bands = both_ways(served, saved(Image.fromarray(textured(3, 8)), "BMP"), many_bands)
    assert in_one_band == in_many_bands


@settings(max_examples=30)
@given(
    width=st.integers(1, 80),
    height=st.integers(1, 140),
    channels=st.integers(1, 4),
    outscale=st.none() | st.floats(0.02, 6),
    seed=st.integers(0, 9),
)
def test_bands_of_any_size_and_scale(
    served: Served, width: int, height: int, channels: int, outscale: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (height, width, channels), np.uint8)
    if channels in (2, 4):
        values[:, :, -1] *= random.random((height, width)) > 0.5
    file = vips(values, "b-w" if channels < 3 else "srgb").pngsave_buffer()
    with pytest.MonkeyPatch.context() as patch:
        in_one_band = served.client.upscale(file, outscale=outscale)
        patch.setattr("runtime.picture_work.BAND_BYTES", SMALL_BAND_BYTES)
        in_many_bands = served.client.upscale(file, outscale=outscale)
    assert in_one_band.image == in_many_bands.image
    header = open_picture(in_many_bands.image, max_pixels=10**7).header
    wanted = [max(1, round(side * np.float32(outscale or 4).item())) for side in (width, height)]
    assert [header.width, header.height] == [in_many_bands.width, in_many_bands.height] == wanted


# What is left when it ends before the last band.


class Stoppable(FakeUpscaler):
    """Comes to a halt, or fails, once it has run `most` tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.most: int | None = None
        self.stops_with: Exception | None = None
        self.stopped = threading.Event()

    def run(self, inputs: Any) -> dict[str, Array]:
        if self.most is not None and self.items_run >= self.most:
            self.failure = self.stops_with
            if self.failure is None:
                self.gate.clear()
            self.stopped.set()
        return super().run(inputs)

    def heal(self) -> None:
        self.most = self.failure = None
        self.gate.set()
        self.stopped.clear()


@pytest.fixture
def stoppable(serve: Serve) -> Iterator[tuple[Served, Stoppable]]:
    engine = Stoppable()
    yield serve(engine), engine
    engine.heal()


def files_open() -> list[str]:
    """The temporary files that this process holds open, named or not."""
    open_files = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # the listing's own
        if target.startswith(tempfile.gettempdir()):
            open_files.append(target)
    return open_files


def writers_at_work(served: Served) -> int:
    """The threads that write answers."""
    return served.service.stats().codecs.busy["writers"]


def ends_cleanly(
    served: Served, end: Callable[[], Any], heal: Callable[[], None] = lambda: None, times: int = 3
) -> None:
    """End a request so many times: no file, thread or memory stays behind, and the next request is served."""
    before = files_open()
    named = set(Path(tempfile.gettempdir()).glob("ganforge-*"))
    for _ in range(times):
        end()
        heal()
        answer = served.client.upscale(png(61, 110))
        assert levels_apart(decoded(answer.image), expected(decoded(png(61, 110)))) <= 1
        until(lambda: files_open() == before)
        until(lambda: writers_at_work(served) == 0)
        until(lambda: served.admission.working_bytes == 0)
    assert set(Path(tempfile.gettempdir()).glob("ganforge-*")) == named


@dataclass
class Started:
    """A call under way, of either kind. wait: until it has ended; raises what it ended with."""

    cancel: Callable[[], object]
    wait: Callable[[], object]


Begin = Callable[..., Started]


@pytest.fixture(params=["in one message", "in pieces"])
def begin(request: pytest.FixtureRequest, stoppable: tuple[Served, Stoppable]) -> Begin:
    """begin(file, timeout_s=20): upscale a file, through either call."""
    served, _ = stoppable

    def pieces(file: bytes) -> Iterator[pb.UpscaleStreamRequest]:
        yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
        for start in range(0, len(file), 2**20):
            yield pb.UpscaleStreamRequest(data=file[start : start + 2**20])

    def start(file: bytes, timeout_s: float = 20) -> Started:
        if request.param == "in pieces":
            stream = served.stub.UpscaleStream(pieces(file), timeout=timeout_s)
            return Started(stream.cancel, lambda: list(stream))
        call = served.stub.Upscale.future(pb.UpscaleRequest(image=file), timeout=timeout_s)
        return Started(call.cancel, call.result)

    return start


TILES_OF_A_BAND = 3  # 61 px across are three windows of 32 with a halo of 4
TILES_OF_TWO_BANDS = 2 * TILES_OF_A_BAND


@pytest.mark.parametrize("after", [0, TILES_OF_TWO_BANDS])
def test_a_call_that_is_cancelled_between_bands_leaves_nothing(
    stoppable: tuple[Served, Stoppable], begin: Begin, many_bands: list[int], after: int
) -> None:
    served, engine = stoppable

    def end() -> None:
        engine.items_run, engine.most = 0, after
        call = begin(file_of(3, 8))
        assert engine.stopped.wait(20)
        call.cancel()

    ends_cleanly(served, end, engine.heal)


def test_a_deadline_between_bands_leaves_nothing(
    stoppable: tuple[Served, Stoppable], begin: Begin, many_bands: list[int]
) -> None:
    served, engine = stoppable

    def end() -> None:
        engine.items_run, engine.most = 0, TILES_OF_TWO_BANDS
        error = refusal(begin(file_of(3, 8), timeout_s=0.5).wait)
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    # Once: the server takes the time at the gate for the device's speed, and may refuse the next such deadline at once.
    ends_cleanly(served, end, engine.heal, times=1)


def test_an_engine_that_fails_between_bands_leaves_nothing(
    stoppable: tuple[Served, Stoppable], begin: Begin, many_bands: list[int]
) -> None:
    served, engine = stoppable
    engine.stops_with = RuntimeError("out of luck")

    def end() -> None:
        engine.items_run, engine.most = 0, TILES_OF_TWO_BANDS
        error = refusal(begin(file_of(3, 8)).wait)
        assert error.code() == grpc.StatusCode.INTERNAL

    ends_cleanly(served, end, engine.heal)


@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_a_file_that_ends_between_bands_leaves_nothing(
    stoppable: tuple[Served, Stoppable],
    begin: Begin,
    many_bands: list[int],
    format: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, _ = stoppable
    whole = file_of(3, 8, format)
    damaged = whole[: len(whole) * 2 // 3]
    decoded_bands: list[int] = []
    decode = PictureWork.decode

    def counted(picture: PictureWork, index: int) -> None:
        decode(picture, index)
        decoded_bands.append(index)

    monkeypatch.setattr(PictureWork, "decode", counted)

    def end() -> None:
        decoded_bands.clear()
        error = refusal(begin(damaged).wait)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "image" in error.details()
        assert 0 < len(decoded_bands) < many_bands[-1]

    ends_cleanly(served, end)


def test_a_damaged_file_ends_its_call_while_tiles_of_it_are_on_the_device(
    stoppable: tuple[Served, Stoppable], begin: Begin, many_bands: list[int]
) -> None:
    served, engine = stoppable
    whole = file_of(3, 8, "jpeg")
    damaged = whole[: len(whole) * 7 // 10]  # the third band cannot be decoded

    def end() -> None:
        engine.items_run, engine.most = 0, TILES_OF_A_BAND  # the second band's tiles stay on the device
        error = refusal(begin(damaged, timeout_s=10).wait)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT

    ends_cleanly(served, end, engine.heal)


def test_a_large_upload_is_deleted_with_its_request(
    stoppable: tuple[Served, Stoppable], begin: Begin, many_bands: list[int]
) -> None:
    served, _ = stoppable
    padding = bytes(2 * 2**20)  # behind a PNG's end; enough for the upload to lie on the disk
    ends_cleanly(served, lambda: begin(png(61, 110) + padding).wait())
    damaged = png(61, 110)[:-9000] + padding
    ends_cleanly(served, lambda: refusal(begin(damaged).wait))


def test_concurrent_requests_of_many_bands_get_their_own_answers(
    served: Served, many_bands: list[int]
) -> None:
    sizes = [(20 + 11 * number, 150 - 9 * number) for number in range(12)]

    def levels_off(number: int) -> int:
        width, height = sizes[number]
        answer = served.client.upscale(png(width, height, seed=number))
        return levels_apart(decoded(answer.image), expected(decoded(png(width, height, seed=number))))

    with ThreadPoolExecutor(12) as pool:
        assert max(pool.map(levels_off, range(12))) <= 1
