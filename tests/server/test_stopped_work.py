"""What a call leaves behind when it ends early, in a real process: no work goes on, and the server can end at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime import pixels
from server.launch import Launched, launched
from tests.server.bundles import write_upscaler
from tests.server.conftest import OPTIONS, png, until

# CPU time in so many seconds; a server at rest takes next to none, an encoder also on a busy machine more.
WATCHED_S, WORKING_S = 1.0, 0.05
ENDS_WITHIN_S = 20.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Launched]:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    write_upscaler(bundles)
    with launched(bundles, log=tmp_path / "server.log", flags=["--grace-s", "1"]) as server:
        yield server


def long_to_encode() -> pb.UpscaleRequest:
    """192 megapixels at the most effort: minutes of encoding, from a moment on the device."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 96, 3), np.uint8)
    file = pixels.encode(noise, "png")
    return pb.UpscaleRequest(image=file, outscale=125, format=pb.IMAGE_FORMAT_PNG, compression=9)


def encodes(process: psutil.Process) -> bool:
    """Whether the process works now."""
    before_s = sum(process.cpu_times()[:2])
    threading.Event().wait(WATCHED_S)
    return bool(sum(process.cpu_times()[:2]) - before_s > WORKING_S)


def test_encoding_ends_with_its_call(server: Launched) -> None:
    process = psutil.Process(server.pid)
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        stub = pb_grpc.ImageGeneratorStub(channel)
        call = stub.Upscale.future(long_to_encode())
        until(lambda: encodes(process))
        call.cancel()
        until(lambda: not encodes(process), ENDS_WITHIN_S)
        assert stub.Upscale(pb.UpscaleRequest(image=png(8, 8)), timeout=30).width > 8


def test_a_server_that_encodes_ends_after_its_grace(server: Launched) -> None:
    process = psutil.Process(server.pid)
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        calls = [pb_grpc.ImageGeneratorStub(channel).Upscale.future(long_to_encode()) for _ in range(2)]
        until(lambda: encodes(process))
        process.send_signal(signal.SIGTERM)
        process.wait(ENDS_WITHIN_S)
        assert all(call.exception() is not None for call in calls)


def test_a_wide_picture_of_very_many_tiles_holds_nobody_up(server: Launched) -> None:
    """The largest that --max-pixels allows is refused at once, and one of a thousand tiles runs beside others."""
    widest, wide = (pixels.encode(np.zeros((1, side, 3), np.uint8), "png") for side in (2**26, 2**15))
    with grpc.insecure_channel(server.address, OPTIONS) as channel, ThreadPoolExecutor(8) as pool:
        stub = pb_grpc.ImageGeneratorStub(channel)

        def status(file: bytes) -> grpc.StatusCode:
            call = stub.Upscale.future(pb.UpscaleRequest(image=file, outscale=0.01), timeout=100)
            return call.exception().code() if call.exception() else grpc.StatusCode.OK

        others = [pool.submit(status, file) for file in [widest] * 4 + [wide] * 4]
        for _ in range(5):
            assert stub.Upscale(pb.UpscaleRequest(image=png(32, 32)), timeout=20).width > 32
        assert [other.result() for other in others] == [grpc.StatusCode.INVALID_ARGUMENT] * 4 + [
            grpc.StatusCode.OK
        ] * 4
