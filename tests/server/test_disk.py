"""A full disk, through a real server under a limit on the size of files: whose trouble it is, and that it passes."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime import pixels
from runtime.errors import OutOfSpace
from server.core.disk import Disk, path
from server.launch import Launched, launched
from tests.server.bundles import write_upscaler
from tests.server.conftest import OPTIONS, png, refusal, until

MIB = 2**20
FULL_AT_BYTES = 3 * MIB


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder, spool = tmp_path_factory.mktemp("bundles"), tmp_path_factory.mktemp("spool")
    write_upscaler(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(spool))
        with launched(folder, log=spool.parent / "server.log") as server:
            yield server


@pytest.fixture
def full(server: Launched) -> Iterator[None]:
    """No file of the server may grow beyond FULL_AT_BYTES inside the test. Python ignores the signal that comes with it."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (FULL_AT_BYTES, resource.RLIM_INFINITY))
    yield
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@pytest.fixture
def stub(server: Launched) -> Iterator[pb_grpc.ImageGeneratorStub]:
    with grpc.insecure_channel(server.address, OPTIONS) as channel:
        yield pb_grpc.ImageGeneratorStub(channel)


def lines(server: Launched) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def is_exhausted(server: Launched, error: Any) -> bool:
    """Whether a call was refused as the server's own trouble: with a delay for a retry, and an error in its log."""
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(error).details[0].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() > 0
    until(lambda: lines(server)[-1]["event"] == "call")
    (call,) = (line for line in lines(server)[-1:] if line["event"] == "call")
    return call["level"] == "error" and call["code"] == "RESOURCE_EXHAUSTED"


def large() -> pb.UpscaleRequest:
    """The answer is 19 MB of noise, too large for memory."""
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    return pb.UpscaleRequest(
        image=pixels.encode(noise, "png"), format=pb.IMAGE_FORMAT_TIFF, outscale=4, compression=0
    )


def health(server: Launched) -> list[bool]:
    return [
        bool(line["healthy"])
        for line in lines(server)
        if line["event"] == "health" and line["part"] == "disk"
    ]


def test_a_full_disk_while_bands_are_written_is_the_servers_own_trouble(
    server: Launched, stub: pb_grpc.ImageGeneratorStub, full: None
) -> None:
    error = refusal(lambda: stub.Upscale(large()))
    assert "cannot write its temporary files" in error.details()
    assert is_exhausted(server, error)
    assert health(server)[-1] is False
    assert stub.Upscale(pb.UpscaleRequest(image=png(8, 8))).width > 8  # small pictures need no disk


def test_a_full_disk_during_an_upload_is_too(
    server: Launched, stub: pb_grpc.ImageGeneratorStub, full: None
) -> None:
    parts = [pb.UpscaleStreamRequest(header=pb.UpscaleRequest())]
    parts += [pb.UpscaleStreamRequest(data=bytes(MIB)) for _ in range(6)]
    assert is_exhausted(server, refusal(lambda: list(stub.UpscaleStream(iter(parts)))))


def test_the_disk_is_healthy_again_after_a_write_succeeds(
    server: Launched, stub: pb_grpc.ImageGeneratorStub
) -> None:
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (FULL_AT_BYTES, resource.RLIM_INFINITY))
    refusal(lambda: stub.Upscale(large()))
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert stub.Upscale(large()).height > 640
    assert health(server)[-2:] == [False, True]


def test_nothing_is_left_of_an_upload_when_the_server_is_killed(tmp_path: Path) -> None:
    bundles, spool = tmp_path / "bundles", tmp_path / "spool"
    bundles.mkdir()
    spool.mkdir()
    write_upscaler(bundles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(spool))
        with (
            launched(bundles, log=tmp_path / "log") as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            sent = [pb.UpscaleStreamRequest(header=pb.UpscaleRequest())]
            sent += [pb.UpscaleStreamRequest(data=bytes(MIB)) for _ in range(3)]
            call = pb_grpc.ImageGeneratorStub(channel).UpscaleStream(unfinished(sent))
            process = psutil.Process(server.pid)
            until(lambda: any(str(spool) in file for file in descriptors(process)))
            os.kill(server.pid, signal.SIGKILL)
            refusal(lambda: list(call))
    assert not any(spool.iterdir())


def unfinished(parts: list[pb.UpscaleStreamRequest]) -> Iterator[pb.UpscaleStreamRequest]:
    """A stream that sends and never ends."""
    yield from parts
    threading.Event().wait(60)


def descriptors(process: psutil.Process) -> list[str]:
    folder = Path(f"/proc/{process.pid}/fd")
    return [os.readlink(each) for each in folder.iterdir() if each.is_symlink()]


def test_a_file_without_a_name_can_be_opened_again() -> None:
    with Disk().file() as file:
        file.write(b"pixels")
        file.flush()
        assert path(file).read_bytes() == b"pixels"


def test_other_errors_of_the_system_stay_what_they_are() -> None:
    told: list[tuple[bool, str]] = []
    disk = Disk(lambda healthy, reason: told.append((healthy, reason)))
    with pytest.raises(PermissionError), disk.writing():
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(OutOfSpace), disk.writing():
        raise OSError(errno.ENOSPC, "full")
    with disk.writing():
        pass
    assert [healthy for healthy, _ in told] == [False, True]
