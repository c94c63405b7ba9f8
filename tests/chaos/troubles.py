"""What goes wrong, one function a trouble: each makes a call, brings the trouble in and returns what the callers saw.

tests/chaos/cells.py calls them through TROUBLES and judges. Each gets a Scene: a server, the call's name, and random moments.
"""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.raw_http2 import Connection, message
from tests.chaos import calls
from tests.chaos.expectations import ENDED, KILLED
from tests.chaos.servers import FEW_FILES, IDLE_S, SMALL_DISK_BYTES, Server
from tests.faulty_engine import Fault, Kind

PATH = "/ganforge.v1.ImageGenerator/"
# Seconds that each batch takes, so that a call is there when the trouble comes.
SLOW = Fault("late", late_s=0.7)
# So that a call of sixteen batches is there for a while, and is then answered.
SLOWISH = Fault("late", late_s=0.12)
DAY_S = 86_400
TRANSIENT: tuple[Kind, ...] = ("raise", "nan", "memory", "shape")
# Time for the server to end what it must end after IDLE_S, on a busy machine.
PATIENCE_S = 30.0


@dataclass
class Scene:
    """A cell in progress. `ids` collects the request ids whose log lines are judged; `notes` what is wrong beyond codes."""

    server: Server
    call: str
    random: random.Random
    connection: grpc.Channel
    name: str
    ids: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def new_id(self) -> str:
        """A request id for the log."""
        self.ids.append(f"{self.name}-{len(self.ids)}")
        return self.ids[-1]

    def start(self, size: str, **options: object) -> calls.Running:
        """Make the scene's call over its connection."""
        return calls.start(self.connection, self.call, size, request_id=self.new_id(), **options)  # type: ignore[arg-type]

    def moment(self, most_s: float = 0.4) -> None:
        """Let a random time pass: the trouble may come at any moment of the call."""
        time.sleep(self.random.uniform(0, most_s))

    def wait_until_open(self) -> None:
        """Wait until the server has a call."""
        until = time.monotonic() + PATIENCE_S
        while self.server.gauges()["ganforge_open_calls"] < 1 and time.monotonic() < until:
            time.sleep(0.02)


def cancel(scene: Scene) -> list[str]:
    """The caller cancels a running call."""
    scene.server.set_faults(SLOW)
    running = scene.start("long")
    scene.wait_until_open()
    scene.moment()
    running.call.cancel()
    return [running.outcome()]


def deadline(scene: Scene) -> list[str]:
    """A call has less time than it takes."""
    scene.server.set_faults(SLOW)
    return [scene.start("long", timeout_s=0.3 + scene.random.uniform(0, 0.3)).outcome()]


def client_killed(scene: Scene) -> list[str]:
    """The process of the caller is killed."""
    scene.server.set_faults(SLOW)
    command = [sys.executable, "-m", "tests.chaos.victim", scene.server.address, scene.call, scene.new_id()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()
        scene.wait_until_open()
        scene.moment(0.2)
        client.kill()
        rest = client.stdout.read().strip()
    return [rest or KILLED]


def slow_reader(scene: Scene) -> list[str]:
    """The caller never makes room for the answer."""
    with Connection(scene.server.address) as connection:
        stream = connection.call(PATH + scene.call, {"x-request-id": scene.new_id()})
        connection.send(stream, _whole_request(scene.call, "large"), end=True)
        return [_ended(scene, connection, stream)]


def slow_writer(scene: Scene) -> list[str]:
    """The caller stops in the middle of its request."""
    with Connection(scene.server.address) as connection:
        stream = connection.call(PATH + scene.call, {"x-request-id": scene.new_id()})
        request = _whole_request(scene.call, "small")
        connection.send(stream, request[: len(request) // 2], end=False)
        return [_ended(scene, connection, stream)]


def _whole_request(call: str, size: str) -> bytes:
    """The bytes of a request's messages."""
    messages = calls.pieces(size) if call in calls.STREAMED else [calls.REQUESTS[call](size)]
    return b"".join(message(each.SerializeToString()) for each in messages)


def _ended(scene: Scene, connection: Connection, stream: int) -> str:
    """What a bare connection sees of a call's end, while something asks for the server's health now and then.

    gRPC's main loop refers to its last call until the next one arrives, so on a server that nobody calls, not even an
    orchestrator, that one call would stay.
    """
    began = time.monotonic()
    health = health_pb2_grpc.HealthStub(scene.connection)
    while time.monotonic() < began + IDLE_S + PATIENCE_S:
        if connection.wait_for_end(stream, 1.0):
            return ENDED
        health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    return f"still open after {time.monotonic() - began:.0f} s"


def engine_faults(scene: Scene) -> list[str]:
    """The device fails once, in each of several ways."""
    outcomes = []
    for kind in TRANSIENT:
        scene.server.set_faults(Fault(kind, times=1))
        outcomes.append(scene.start("long").outcome())
    return outcomes


def disk_full(scene: Scene) -> list[str]:
    """A file does not fit on the disk of temporary files."""
    if scene.call not in calls.STREAMED:
        other = calls.pieces("small", padding_bytes=2 * SMALL_DISK_BYTES)
        calls.start(
            scene.connection, "UpscaleStream", "small", request_id=f"{scene.name}-other", requests=other
        )
        return [scene.start("small").outcome()]
    padded = calls.pieces("small", padding_bytes=2 * SMALL_DISK_BYTES)
    return [scene.start("small", requests=padded).outcome()]


def clock_jump(scene: Scene) -> list[str]:
    """The wall clock jumps a day ahead and back while a call runs."""
    scene.server.set_faults(SLOWISH)
    running = scene.start("long", timeout_s=60.0)
    for offset_s in (DAY_S, -DAY_S, 0):
        scene.moment(0.2)
        scene.server.set_clock(offset_s)
    return [running.outcome()]


def file_limit(scene: Scene) -> list[str]:
    """Others open more connections than the server may have files."""
    host, port = scene.server.address.rsplit(":", 1)
    with ExitStack() as sockets:
        for _ in range(FEW_FILES + 50):
            try:
                sockets.enter_context(socket.create_connection((host, int(port)), timeout=1))
            except OSError:  # refused, or nobody accepts it
                break
        first = scene.start("long", timeout_s=PATIENCE_S).outcome()
    return [first, _first_answer(scene)]


def _first_answer(scene: Scene) -> str:
    """What a new client sees that tries again as long as the server says UNAVAILABLE: it may not know yet who has gone."""
    until, request_id = time.monotonic() + PATIENCE_S, scene.new_id()
    while True:
        with calls.channel(scene.server.address) as fresh:
            running = calls.start(fresh, scene.call, "small", request_id=request_id, timeout_s=PATIENCE_S)
            outcome = running.outcome()
        if outcome != "UNAVAILABLE" or time.monotonic() > until:
            return outcome
        time.sleep(0.2)


def sigterm(scene: Scene) -> list[str]:
    """The server is asked to stop while a call runs."""
    scene.server.set_faults(SLOWISH)
    running = scene.start("long")
    scene.wait_until_open()
    scene.moment(0.3)
    with calls.channel(scene.server.address) as other:
        grpc.channel_ready_future(other).result(PATIENCE_S)
        scene.server.send(signal.SIGTERM)
        time.sleep(0.3)  # the signal is handled on the event loop
        late = calls.start(other, scene.call, "small", request_id=f"{scene.name}-late").outcome()
    outcome = running.outcome()
    code = scene.server.wait()
    if late != "UNAVAILABLE":
        scene.notes.append(f"a call after SIGTERM got {late}, expected UNAVAILABLE")
    if code != 0:
        scene.notes.append(f"the process ended with {code}, expected 0")
    return [outcome]


def sigkill(scene: Scene) -> list[str]:
    """The server is killed while a call runs and an upload lies on its disk."""
    scene.server.set_faults(SLOW)
    running = scene.start("long")
    with Connection(scene.server.address) as connection:
        stream = connection.call(PATH + "UpscaleStream")
        for part in calls.pieces("small", padding_bytes=2 * calls.MIB):
            connection.send(stream, message(part.SerializeToString()), end=False)
        scene.wait_until_open()
        scene.moment()
        process = psutil.Process(scene.server.pid)
        scene.server.send(signal.SIGKILL)
        process.wait(PATIENCE_S)
    scene.server.wait()
    return [running.outcome()]


TROUBLES: dict[str, Callable[[Scene], list[str]]] = {
    "cancel": cancel,
    "deadline": deadline,
    "client killed": client_killed,
    "slow reader": slow_reader,
    "slow writer": slow_writer,
    "engine faults": engine_faults,
    "disk full": disk_full,
    "clock jump": clock_jump,
    "file limit": file_limit,
    "SIGTERM": sigterm,
    "SIGKILL": sigkill,
}
