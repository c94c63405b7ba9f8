"""Upscale and UpscaleStream through gRPC, compared with the same network on the whole image."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.errors import InvalidInput
from runtime.picture_work import PictureWork
from runtime.pictures.reading import open_picture
from runtime.tiling.canvas import Canvas
from server.client import STREAM_FROM_BYTES
from server.limits import Limits
from tests.server.conftest import (
    SCALE,
    FakeUpscaler,
    Serve,
    Served,
    decoded,
    expected,
    held,
    levels_apart,
    picture,
    png,
    refusal,
    until,
)

SIZES = [(1, 1), (7, 5), (63, 65), (33, 200), (200, 200), (321, 130)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_answer_is_that_of_the_whole_image(served: Served, width: int, height: int) -> None:
    answer = served.stub.Upscale(pb.UpscaleRequest(image=png(width, height)))
    assert (answer.width, answer.height) == (width * SCALE, height * SCALE)
    assert (answer.format, answer.model) == (pb.IMAGE_FORMAT_PNG, "upscaler")
    assert levels_apart(decoded(answer.image), expected(picture(width, height))) <= 1


def test_timing_says_what_ran_and_for_how_long(served: Served) -> None:
    timing = served.stub.Upscale(pb.UpscaleRequest(image=png(100, 50))).timing
    assert (timing.precision, timing.backend) == ("float32", "numpy")
    assert timing.tiles == 8  # 4 × 2 windows of 32 with a halo of 4
    assert timing.inference_ms > 0
    assert timing.codec_ms > 0


def test_no_part_of_the_timing_exceeds_the_total(upscaler: tuple[Served, FakeUpscaler]) -> None:
    served, _ = upscaler
    with ThreadPoolExecutor(4) as pool:
        images = [png(150, 120, seed=number) for number in range(8)]
        timings = [answer.timing for answer in pool.map(served.client.upscale, images)]
    for timing in timings:
        assert timing.queue_ms + timing.inference_ms <= timing.total_ms + 1e-6
        assert timing.queue_ms + timing.codec_ms <= timing.total_ms + 1e-6


@settings(max_examples=25)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 3))
def test_any_size_is_upscaled_correctly_through_the_stream(
    served: Served, width: int, height: int, pieces: int
) -> None:
    data = png(width, height, seed=7)
    cut = sorted({0, len(data), *(len(data) * n // (pieces + 1) for n in range(1, pieces + 1))})

    def requests() -> Iterator[pb.UpscaleStreamRequest]:
        yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest(model="upscaler"))
        for start, stop in pairwise(cut):
            yield pb.UpscaleStreamRequest(data=data[start:stop])

    parts = list(served.stub.UpscaleStream(requests()))
    kinds = [part.WhichOneof("part") for part in parts]
    header_at = kinds.index("header")
    assert set(kinds[:header_at]) <= {"progress"}
    assert set(kinds[header_at + 1 :]) == {"data"}
    assert not parts[header_at].header.image
    last = parts[header_at - 1].progress
    assert last.tiles_done == last.tiles_total == parts[header_at].header.timing.tiles
    answer = b"".join(part.data for part in parts[header_at + 1 :])
    assert levels_apart(decoded(answer), expected(picture(width, height, seed=7))) <= 1


def test_sixteen_clients_with_sixteen_sizes_each_get_their_own(served: Served) -> None:
    sizes = [(17 + 9 * n, 150 - 7 * n) for n in range(16)]

    def levels_off(number: int) -> int:
        width, height = sizes[number]
        answer = served.client.upscale(png(width, height, seed=number))
        return levels_apart(decoded(answer.image), expected(picture(width, height, seed=number)))

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(levels_off, range(16))) <= 1


def test_tiles_of_different_requests_share_batches(upscaler: tuple[Served, FakeUpscaler]) -> None:
    served, engine = upscaler
    scheduler = next(iter(served.models)).scheduler
    with ThreadPoolExecutor(5) as pool, held(engine):
        answers = [pool.submit(served.client.upscale, png(32, 32, seed=0))]
        assert engine.entered.wait(20)  # the first is on the device alone, so the others wait for it
        answers += [pool.submit(served.client.upscale, png(32, 32, seed=n)) for n in range(1, 5)]
        until(lambda: scheduler.stats().jobs_waiting == 4)
        engine.gate.set()
        for number, answer in enumerate(answers):
            upscaled = decoded(answer.result(30).image)
            assert levels_apart(upscaled, expected(picture(32, 32, seed=number))) <= 1
    assert scheduler.stats().mean_batch > 1


@pytest.mark.parametrize("outscale", [0.5, 1.0, 2.0, 3.7, 5.0])
def test_another_scale_is_resized_before_rounding(served: Served, outscale: float) -> None:
    answer = served.stub.Upscale(pb.UpscaleRequest(image=png(40, 30), outscale=outscale))
    assert (answer.width, answer.height) == (round(40 * outscale), round(30 * outscale))
    exact = expected(picture(40, 30)).astype(np.float32) / 255
    reference = pixels.to_uint8(pixels.resize(exact, answer.width, answer.height))
    assert levels_apart(decoded(answer.image), reference) <= 2


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_the_answer_has_the_inputs_format_or_the_one_asked_for(served: Served, format: str) -> None:
    smooth = np.full((20, 20, 3), 128, np.uint8)
    given = pixels.encode(smooth, format)
    kept = served.client.upscale(given)
    assert kept.format == format
    assert open_picture(kept.image, max_pixels=10**6).header.format == format
    asked = served.client.upscale(pixels.encode(smooth, "png"), format=format, quality=80)
    assert asked.format == format


def test_a_gif_is_answered_as_png(served: Served) -> None:
    import pyvips

    image = pyvips.Image.new_from_array(np.full((9, 9, 3), 90, np.uint8)).gifsave_buffer()
    assert served.client.upscale(image).format == "png"


def test_a_webp_too_long_for_webp_is_answered_as_png_unless_webp_was_asked_for(serve: Serve) -> None:
    served = serve(FakeUpscaler())
    strip = pixels.encode(np.full((2, 5000, 3), 90, np.uint8), "webp")
    assert served.client.upscale(strip).format == "png"
    error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=strip, format=pb.IMAGE_FORMAT_WEBP)))
    assert "16383" in error.details()


def test_an_answer_larger_than_a_message_comes_through_the_stream(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=Limits(max_message_bytes=150_000))
    error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=png(150, 150))))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "streaming call" in error.details()


@pytest.mark.parametrize("fails", [False, True], ids=["answered", "failed"])
@pytest.mark.parametrize("bytes_more", [0, STREAM_FROM_BYTES], ids=["in one message", "in pieces"])
def test_a_requests_memory_is_freed_without_garbage_collection(
    upscaler: tuple[Served, FakeUpscaler], bytes_more: int, fails: bool
) -> None:
    served, engine = upscaler
    image = png(100, 100) + bytes(bytes_more)  # what follows a PNG's end is no part of it
    gc.collect()
    gc.disable()
    before = {id(work) for work in in_memory()}  # of tests before this one
    engine.failure = InvalidInput("image", "out of luck") if fails else None
    try:
        with contextlib.suppress(InvalidInput):
            served.client.upscale(image)
        engine.failure = None  # an error holds the frames that it went through
        # The server's task ends just after its answer has left.
        until(lambda: {id(work) for work in in_memory()} <= before)
    finally:
        gc.enable()


def in_memory() -> list[object]:
    """The work of every request that is alive, and its canvases."""
    # By type(): isinstance asks an object for its class, and torch's deprecated ones answer with a warning.
    return [work for work in gc.get_objects() if type(work) in (Canvas, PictureWork)]
