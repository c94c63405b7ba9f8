"""Connections that do nothing: with few descriptors left, new clients are still served."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from benchmarks.raw_http2 import PREFACE, SETTINGS, frame
from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from server.machine.open_files import most_connections, raise_limit
from tests.server.bundles import write_enlarger
from tests.server.conftest import png, until

ROOT = Path(__file__).resolve().parents[2]
FILES, IDLE = 256, 300


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address and the log of a server that may open few files."""
    write_enlarger(tmp_path / "bundles")
    command = [
        sys.executable,
        "-m",
        "server",
        "--bundles",
        str(tmp_path / "bundles"),
        "--port",
        "0",
        "--grace-s",
        "1",
    ]
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (100, %d)); os.execv(sys.argv[1], sys.argv[1:])"
    log = tmp_path / "log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-c", limit % FILES, *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
        )
        assert server.stdout is not None
        yield server.stdout.readline().removeprefix("serving on ").strip(), log
        server.terminate()
        server.wait(30)
        server.stdout.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for connections in /proc")
def test_idle_connections_do_not_lock_new_clients_out(process: tuple[str, Path]) -> None:
    address, log = process
    host, _, port = address.rpartition(":")
    assert json.loads(log.read_text().splitlines()[0])["event"]
    idle: list[socket.socket] = []
    try:
        for _ in range(IDLE):
            idle.append(socket.create_connection((host, int(port)), 10))
            idle[-1].sendall(PREFACE + frame(SETTINGS, 0, 0, b""))

        def served() -> bool:
            with grpc.insecure_channel(address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                stub = pb_grpc.ImageGeneratorStub(channel)
                answer = stub.Upscale.future(pb.UpscaleRequest(image=png(8, 8)), timeout=10)
                return bool(answer.code() == grpc.StatusCode.OK)

        until(served, within_s=30)
        for _ in range(5):
            assert served()
    finally:
        for connection in idle:
            connection.close()
    lines = [
        json.loads(line)
        for line in log.read_text().splitlines(keepends=True)
        if line[:1] + line[-1:] == "{\n"
    ]
    (limits,) = [line for line in lines if line["event"] == "open files"]
    assert limits["limit"] == FILES
    assert any(line["event"] == "hung up on idle connections" for line in lines)
    assert not [line for line in lines if line.get("code") == "INTERNAL"]


def test_the_limit_on_open_files_is_raised_as_far_as_it_may_be() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512));"
        "from server.machine.open_files import most_connections, raise_limit; print(raise_limit(), most_connections())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["512", "384"]
    assert most_connections() < raise_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
