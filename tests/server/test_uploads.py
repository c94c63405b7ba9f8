"""Uploads in pieces, through real clients: their limits, lifetime and place (memory or disk)."""

from __future__ import annotations

import os
import queue
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from protos import ganforge_pb2 as pb
from server.limits import SPOOL_FROM_BYTES, Limits
from tests.server.conftest import FakeUpscaler, Serve, Served, held, png, refusal, until

PIECE_BYTES = 600


class Sender:
    """A client that sends pieces when the test says so. code: blocks until the call has ended."""

    def __init__(self, served: Served) -> None:
        self._parts: queue.SimpleQueue[pb.UpscaleStreamRequest | None] = queue.SimpleQueue()
        self.call = served.stub.UpscaleStream(self._requests(), timeout=60)
        self._parts.put(pb.UpscaleStreamRequest(header=pb.UpscaleRequest()))

    def send(self, piece: bytes) -> None:
        self._parts.put(pb.UpscaleStreamRequest(data=piece))

    def end(self) -> None:
        """No more pieces."""
        self._parts.put(None)

    def finish(self) -> grpc.StatusCode:
        """No more pieces; the status that the call ends with."""
        self.end()
        return self.code()

    def code(self) -> grpc.StatusCode:
        try:
            for _ in self.call:
                pass
        except grpc.RpcError:
            pass
        return self.call.code()

    def _requests(self) -> Iterator[pb.UpscaleStreamRequest]:
        while (part := self._parts.get()) is not None:
            yield part


@pytest.fixture
def tight(serve: Serve) -> Served:
    """Room for one and a half pieces of PIECE_BYTES, of all uploads together."""
    return serve(FakeUpscaler(), limits=Limits(max_uploads_bytes=PIECE_BYTES * 3 // 2))


def image(size_bytes: int = PIECE_BYTES) -> bytes:
    """A PNG of exactly so many bytes; what follows a PNG's end is no part of it."""
    file = png(6, 6)
    return file + bytes(size_bytes - len(file))


def test_the_pieces_of_one_upload_count_together(tight: Served) -> None:
    sender = Sender(tight)
    for _ in range(3):
        sender.send(bytes(PIECE_BYTES - 1))
    assert sender.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--max-uploads-bytes" in sender.call.details()


@pytest.mark.parametrize("ending", ["answered", "refused", "cancelled"])
def test_uploads_share_one_budget_and_give_it_back_however_they_end(tight: Served, ending: str) -> None:
    first = Sender(tight)
    first.send(image() if ending == "answered" else bytes(PIECE_BYTES))
    until(lambda: attempt(tight) == grpc.StatusCode.RESOURCE_EXHAUSTED)  # the first piece has arrived
    if ending == "cancelled":
        first.call.cancel()
    else:
        ended = first.finish()
        assert ended == (grpc.StatusCode.OK if ending == "answered" else grpc.StatusCode.INVALID_ARGUMENT)
    until(lambda: attempt(tight) == grpc.StatusCode.OK)


def attempt(served: Served) -> grpc.StatusCode:
    """The end of a small upload of its own."""
    sender = Sender(served)
    sender.send(image())
    return sender.finish()


def test_one_upload_after_another_finds_the_whole_budget(tight: Served) -> None:
    for _ in range(5):
        assert attempt(tight) == grpc.StatusCode.OK


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that uploads are spooled to; nobody else's lie there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def spooled_bytes(spool: Path) -> int:
    """Of the files of a folder that this process holds open, without a name."""
    sizes = {}
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if os.readlink(descriptor).startswith(f"{spool}/"):
                sizes[descriptor.stat().st_ino] = descriptor.stat().st_size
    return sum(sizes.values())


def test_a_large_upload_lies_on_the_disk_until_its_call_ends(served: Served, spool: Path) -> None:
    sender = Sender(served)
    head, rest = image()[:300], image()[300:]
    sender.send(head)
    sender.send(rest + bytes(SPOOL_FROM_BYTES))
    sender.send(bytes(100))
    size_bytes = PIECE_BYTES + SPOOL_FROM_BYTES + 100
    until(lambda: spooled_bytes(spool) == size_bytes)
    assert not any(spool.iterdir())  # it has no name: nothing is left of it however the server ends
    assert sender.finish() == grpc.StatusCode.OK
    until(lambda: spooled_bytes(spool) == 0)


def test_a_small_upload_stays_in_memory(upscaler: tuple[Served, FakeUpscaler], spool: Path) -> None:
    served, engine = upscaler
    with held(engine):
        sender = Sender(served)
        sender.send(image())
        sender.end()
        assert engine.entered.wait(20)  # the whole upload is there, and its call has not ended
        assert spooled_bytes(spool) == 0
    assert sender.code() == grpc.StatusCode.OK


def test_nothing_sent_for_a_while_ends_the_call_and_frees_its_bytes(serve: Serve) -> None:
    served = serve(
        FakeUpscaler(), limits=Limits(idle_s=0.1, max_uploads_bytes=PIECE_BYTES, max_upload_bytes=PIECE_BYTES)
    )
    sender = Sender(served)
    sender.send(bytes(PIECE_BYTES))
    assert sender.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "nothing was uploaded" in sender.call.details()
    error = refusal(lambda: list(served.stub.UpscaleStream(iter(too_large()))))
    # Not RESOURCE_EXHAUSTED: the budget is free again.
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    sender.finish()


def too_large() -> list[pb.UpscaleStreamRequest]:
    return [
        pb.UpscaleStreamRequest(header=pb.UpscaleRequest()),
        pb.UpscaleStreamRequest(data=bytes(PIECE_BYTES)),
        pb.UpscaleStreamRequest(data=b"x"),
    ]
