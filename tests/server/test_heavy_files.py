"""Files that are much larger than their pixels: what takes long to read must not hold up thumbnails, nor their estimates."""

from __future__ import annotations

import struct
import threading
import zlib
from functools import cache
from typing import Any

import grpc
import pytest

from protos import ganforge_pb2 as pb
from runtime.estimates import Estimates
from runtime.picture_work import PictureWork
from runtime.pictures.reading import open_picture
from server.limits import MIB, QUICK_FILE_BYTES
from tests.server.conftest import FakeUpscaler, Serve, Served, png, refusal


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def much_too_much(side: int) -> bytes:
    """A small PNG whose pixels are followed by compressed zeros: 1.1 MB that take a third of a second to read."""
    packer = zlib.compressobj(9)
    zeros = packer.compress(bytes(8 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(8 * MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zeros + 140 * again) + chunk(b"IEND", b"")


class Threads:
    """Which codec threads read headers and decode."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        decode = PictureWork.decode

        def opening(*args: Any, **kwargs: Any) -> Any:
            self._note()
            return open_picture(*args, **kwargs)

        def decoding(work: PictureWork, index: int) -> None:
            self._note()
            decode(work, index)

        monkeypatch.setattr("server.core.images.open_picture", opening)
        monkeypatch.setattr(PictureWork, "decode", decoding)

    def _note(self) -> None:
        self.seen.append(threading.current_thread().name.rpartition("-")[0])


def pieces(image: bytes) -> list[pb.UpscaleStreamRequest]:
    return [
        pb.UpscaleStreamRequest(header=pb.UpscaleRequest()),
        pb.UpscaleStreamRequest(data=image),
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_heavy_files_of_few_pixels_stay_off_the_threads_of_thumbnails(
    served: Served, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """On those threads, four files of 8 MB held up every thumbnail for twelve seconds."""
    threads, bomb = Threads(monkeypatch), much_too_much(32)
    assert len(bomb) > QUICK_FILE_BYTES

    def call() -> object:
        if streamed:
            return list(served.stub.UpscaleStream(iter(pieces(bomb))))
        return served.stub.Upscale(pb.UpscaleRequest(image=bomb))

    assert refusal(call).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert threads.seen == ["codec-slow"] * 2
    served.client.upscale(png(32, 32))
    assert threads.seen[2:] == ["codec-quick"] * 2


def test_a_large_picture_made_small_is_no_thumbnail(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(monkeypatch)
    request = pb.UpscaleRequest(image=png(1200, 900), outscale=0.1)
    assert served.stub.Upscale(request).width == 120
    assert set(threads.seen[1:]) == {"codec-slow"}


def test_estimates_learn_nothing_from_files_larger_than_their_pixels(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a few of them have everybody's small pictures refused, whose deadlines seem too early."""
    served, learned = serve(FakeUpscaler()), list[int]()
    monkeypatch.setattr(Estimates, "learn", lambda _, coding, codec_s: learned.append(coding.pixels))
    assert served.client.upscale(png(32, 32) + bytes(MIB)).width == 128
    assert learned == []
    assert served.client.upscale(png(32, 32)).width == 128
    assert learned == [17 * 32 * 32]
