"""Messages that stop halfway and answers that nobody reads, from real connections to a real process: memory and others' calls."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.raw_http2 import Connection, message
from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.errors import Overloaded
from server.core.calls import Call
from server.core.connections import Connections, machine
from server.core.transit import Transit
from server.core.waiting import Waiting
from server.launch import launched
from server.limits import MIB, Limits
from tests.server.bundles import write_enlarger, write_generator
from tests.server.conftest import FakeUpscaler, Serve, png, refusal, until

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the kernel is asked what has come"
)

METHODS = "/ganforge.v1.ImageGenerator/"
MESSAGE_BYTES, TRANSIT_BYTES, ACTIVE_BYTES = 16 * MIB, 64 * MIB, 160 * MIB
# Beyond the limit: what a fast sender gets in between two looks, copies of one message, and the allocator's own.
SLACK_MIB = 300
# What is left when all is over: thread pools, caches, and what others' thumbnails take.
AFTER_MIB = 100


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_enlarger(folder)
    write_generator(folder)
    return folder


@dataclass(frozen=True)
class Process:
    """A server in a process of its own. earlier: log lines of the tests before."""

    address: str
    pid: int
    log: Path
    earlier: int = 0

    def lines(self) -> list[dict[str, Any]]:
        """The log lines of this test's calls."""
        lines = self.log.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line[:1] + line[-1:] == "{\n"]
        return [event for event in events if event["event"] == "call"][self.earlier :]

    def ended(self, code: str) -> int:
        """How many calls ended with this code."""
        return sum(line["code"] == code for line in self.lines())

    def memory_mib(self, which: str = "VmRSS") -> int:
        """VmRSS: what it holds now; VmHWM: the most in this test."""
        value = re.search(rf"{which}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert value
        return int(value[1]) // 1024


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("bundles")
    write_enlarger(folder)
    write_generator(folder)
    flags = {
        "--max-message-bytes": MESSAGE_BYTES,
        "--max-transit-bytes": TRANSIT_BYTES,
        "--max-active-bytes": ACTIVE_BYTES,
        "--grace-s": 2,
    }
    arguments = [str(each) for flag in flags.items() for each in flag]
    log = tmp_path_factory.mktemp("log") / "server.log"
    with launched(folder, log=log, flags=arguments) as server:
        yield Process(server.address, server.pid, log)


@pytest.fixture
def process(shared: Process) -> Process:
    Path(f"/proc/{shared.pid}/clear_refs").write_text("5")  # begin VmHWM anew
    return replace(shared, earlier=len(shared.lines()))


@contextmanager
def thumbnails(server: Process) -> Iterator[list[grpc.StatusCode]]:
    """Another client, who sends small pictures all the time over connections of its own. How its calls ended."""
    codes: list[grpc.StatusCode] = []
    over = threading.Event()

    def call() -> None:
        request = pb.UpscaleRequest(image=png(32, 32))
        while not over.wait(0.02):
            with grpc.insecure_channel(server.address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                answer = pb_grpc.ImageGeneratorStub(channel).Upscale.future(request, timeout=60)
                codes.append(answer.code())

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield codes
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("method", "connections"), [("Upscale", 40), ("Upscale", 1), ("UpscaleStream", 1), ("Generate", 40)]
)
def test_half_sent_messages_take_little_memory_and_nobody_waits(
    process: Process, method: str, connections: int
) -> None:
    """Forty messages that lack their last byte; together they would take 600 MiB."""
    before_mib = process.memory_mib()
    body = bytes(MESSAGE_BYTES - 2**16)
    with ExitStack() as stack:
        raw = [stack.enter_context(Connection(process.address)) for _ in range(connections)]
        calls = [(connection, connection.call(METHODS + method)) for connection in raw * (40 // connections)]

        def half(connection: Connection, stream: int) -> None:
            connection.send(stream, message(body, len(body) + 1), end=False, timeout_s=5)

        with thumbnails(process) as codes:
            senders = [threading.Thread(target=half, args=call) for call in calls]
            for sender in senders:
                sender.start()
            until(lambda: process.ended("RESOURCE_EXHAUSTED") >= 30, within_s=60)
            seen = len(codes)
            until(lambda: len(codes) > seen + 2, within_s=60)
        most_mib = process.memory_mib("VmHWM")
    for sender in senders:
        sender.join()
    until(lambda: process.memory_mib() - before_mib < AFTER_MIB)
    assert set(codes) == {grpc.StatusCode.OK}
    assert most_mib - before_mib < TRANSIT_BYTES // MIB + SLACK_MIB
    refused = [line for line in process.lines() if line["code"] == "RESOURCE_EXHAUSTED"]
    assert all("--max-transit-bytes" in str(line["message"]) for line in refused)
    assert {line["method"] for line in refused} == {method}
    assert sum(int(str(line["received_bytes"])) for line in refused) > 10 * MIB
    assert process.ended("INTERNAL") == 0


def test_answers_that_nobody_reads_take_little_memory_and_nobody_waits(process: Process) -> None:
    """Eighteen answers of 12 MB each, with their copies 640 MB."""
    before_mib = process.memory_mib()
    request = pb.UpscaleRequest(
        image=png(125, 125), outscale=16, format=pb.IMAGE_FORMAT_PNG, compression=0
    ).SerializeToString()
    with ExitStack() as stack, thumbnails(process) as codes:
        for _ in range(18):
            connection = stack.enter_context(Connection(process.address))
            connection.send(connection.call(METHODS + "Upscale"), message(request), end=True)
        until(lambda: process.ended("RESOURCE_EXHAUSTED") >= 16, within_s=60)
        seen = len(codes)
        until(lambda: len(codes) > seen + 2, within_s=60)
        assert process.memory_mib() - before_mib < TRANSIT_BYTES // MIB + SLACK_MIB
    assert set(codes) == {grpc.StatusCode.OK}
    assert process.ended("INTERNAL") == 0


def test_requests_that_parse_to_much_more_than_their_bytes_are_refused_unparsed(process: Process) -> None:
    """Each would take 250 MB, and stay until a garbage collection."""
    before_mib = process.memory_mib()
    with grpc.insecure_channel(process.address, (("grpc.max_send_message_length", -1),)) as channel:
        call = channel.unary_unary(METHODS + "Generate", None, None)
        body = b"\x2a\x00" * (7 * MIB)
        for _ in range(9):
            error = refusal(lambda: call(body))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert process.memory_mib("VmHWM") - before_mib < 150


def test_a_message_that_stops_halfway_is_ended_after_a_while(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=Limits(idle_s=0.3))
    with Connection(served.address) as connection:
        stream = connection.call(METHODS + "Upscale")
        connection.send(stream, message(bytes(1000), 5000), end=False)
        until(lambda: served.calls("DEADLINE_EXCEEDED") == 1)
    (line,) = [line for line in served.lines if line.get("code") == "DEADLINE_EXCEEDED"]
    assert "--min-rate-bytes-s" in line["message"]
    assert line["method"] == "Upscale"
    assert served.client.upscale(png(4, 4)).width == 16


def test_a_message_that_drips_is_ended_and_a_slow_one_is_not(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=Limits(idle_s=0.3, min_rate_bytes_s=10_000))
    image = pb.UpscaleRequest(image=png(100, 100)).SerializeToString()
    whole = message(image)
    with Connection(served.address) as connection:
        for piece_bytes, code in ((20, "DEADLINE_EXCEEDED"), (3_000, "OK")):
            stream = connection.call(METHODS + "Upscale")
            pause, sent = threading.Event(), 0
            while served.calls(code) == 0:
                piece = whole[sent : sent + piece_bytes]
                sent += len(piece)
                if piece:
                    connection.send(stream, piece, end=sent == len(whole))
                pause.wait(0.03)
    assert served.calls("DEADLINE_EXCEEDED") == 1


def test_idle_streams_make_room_for_others(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=Limits(max_calls=6))
    with Connection(served.address) as connection:
        header = pb.UpscaleStreamRequest(header=pb.UpscaleRequest()).SerializeToString()
        empty = pb.UpscaleStreamRequest(data=b"").SerializeToString()
        streams = [connection.call(METHODS + "UpscaleStream") for _ in range(6)]
        for stream in streams:
            connection.send(stream, message(header), end=False)
        until(lambda: served.service.stats().open_calls == 6)
        for _ in range(20):  # they go on saying nothing
            for stream in streams:
                connection.send(stream, message(empty), end=False)
            time.sleep(0.02)
        for _ in range(3):
            assert served.client.upscale(png(4, 4)).width == 16
        until(lambda: served.calls("RESOURCE_EXHAUSTED") == 1)


async def test_a_call_that_was_long_on_the_device_is_not_idle_when_its_answer_leaves() -> None:
    call = Call.begin("Upscale")
    call.heard_s -= 100
    now_s = time.monotonic()
    assert Waiting(call, asyncio.timeout(1), leaving=True).idle_since_s() >= now_s
    assert Waiting(call, asyncio.timeout(1)).idle_since_s() < now_s - 90


def test_one_address_does_not_get_all_calls(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=Limits(max_calls=6, max_calls_per_client=2))
    with Connection(served.address) as connection:
        for _ in range(2):
            connection.call(METHODS + "Upscale")
        until(lambda: served.service.stats().open_calls == 2)
        with pytest.raises(Overloaded, match="--max-calls-per-client"):
            served.client.upscale(png(4, 4))


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:4711", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::/64"),
        ("unix:/run/socket", "unix:/run/socket"),
        ("", ""),
    ],
)
def test_a_machine_is_its_address(peer: str, expected: str) -> None:
    assert machine(peer) == expected


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_tells_what_has_come_on_a_connection(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as server:
        client = socket.create_connection(server.getsockname()[:2])
        accepted, address = server.accept()
        peer = f"ipv4:{host}:{address[1]}" if family == socket.AF_INET else f"ipv6:%5B{host}%5D:{address[1]}"
        connections = Connections()
        assert connections.received_bytes(peer) is None
        connections.scan()
        assert connections.received_bytes(peer) == 0
        client.sendall(bytes(12_345))
        until(lambda: connections.received_bytes(peer) == 12_345)
        accepted.close()
        assert connections.received_bytes(peer) is None
        client.close()


async def test_a_message_that_does_not_fit_is_refused_and_the_next_fits() -> None:
    transit = Transit(Limits(max_transit_bytes=100))
    call = Call.begin("Upscale", peer="ipv4:192.0.2.1:1")
    with transit.held(60, call):
        with pytest.raises(Overloaded, match="--max-transit-bytes") as refused, transit.held(60, call):
            pass
        assert refused.value.retry_after_s > 0
        assert transit.held_bytes == 60
    with transit.held(100, call):
        pass
    assert transit.held_bytes == 0
