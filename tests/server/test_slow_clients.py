"""Clients that hold disk and take their time: nobody disturbs them until others need it, and then nobody waits for ever."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from benchmarks.raw_http2 import Connection, message
from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.admission import Admission
from runtime.cost import Cost
from server.core.calls import Call
from server.core.requests import ImageRequest, SamplesRequest
from server.core.slow_clients import Holding, SlowClients
from server.core.transit import Transit
from server.limits import MIB, Limits
from tests.server.conftest import FakeGenerator, FakeUpscaler, Serve, Served, png, refusal, until

PATH = "/ganforge.v1.ImageGenerator/UpscaleStream"
# One answer of `large` fits on the disk, two do not.
LIMITS = Limits(max_disk_bytes=50 * MIB, max_uploads_bytes=4 * MIB, idle_s=0.5)


def large() -> list[pb.UpscaleStreamRequest]:
    """The answer is 19 MB of noise, too large for memory."""
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    header = pb.UpscaleRequest(format=pb.IMAGE_FORMAT_TIFF, outscale=4, compression=0)
    return [
        pb.UpscaleStreamRequest(header=header),
        pb.UpscaleStreamRequest(data=pixels.encode(noise, "png")),
    ]


def unread(connection: Connection, parts: list[pb.UpscaleStreamRequest]) -> int:
    """Ask and never read the answer."""
    stream = connection.call(PATH)
    connection.send(stream, b"".join(message(part.SerializeToString()) for part in parts), end=True)
    return stream


def leaving_bytes(served: Served) -> int:
    """Disk of the requests that run."""
    stats = served.service.stats().admission
    assert stats
    return sum(lane.working_disk_bytes for lane in stats.lanes.values())


def test_an_answer_on_disk_that_nobody_reads_makes_room_for_the_next(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=LIMITS)
    with Connection(served.address) as connection:
        unread(connection, large())
        until(lambda: 0 < served.service.transit.held_bytes < 2 * MIB)  # its first piece leaves
        assert sum(len(part.data) for part in served.stub.UpscaleStream(iter(large()), timeout=30)) > 19e6
        until(lambda: served.calls("RESOURCE_EXHAUSTED") == 1)
    (line,) = [line for line in served.lines if line.get("code") == "RESOURCE_EXHAUSTED"]
    assert "others wait for the disk" in line["message"]
    until(lambda: leaving_bytes(served) == 0)


def test_a_slow_reader_is_let_be_while_nobody_needs_its_disk(serve: Serve) -> None:
    served = serve(FakeUpscaler(), limits=LIMITS)
    with Connection(served.address) as connection:
        stream = unread(connection, large())
        until(lambda: 0 < served.service.transit.held_bytes < 2 * MIB)
        assert served.client.upscale(png(8, 8)).width == 32  # it needs no disk
        assert not connection.wait_for_end(stream, 4 * LIMITS.idle_s)
        assert leaving_bytes(served) > 19e6


@pytest.mark.parametrize("kind", ["image", "samples"])
def test_an_answer_that_leaves_holds_neither_its_model_nor_a_share_of_the_memory(
    serve: Serve, kind: str
) -> None:
    served = serve(FakeUpscaler(), FakeGenerator())
    entries = served.models.catalog.entries
    seen: list[tuple[int, int]] = []

    async def send(answer: object) -> None:
        stats = served.service.stats().admission
        assert stats
        held_bytes = sum(lane.working_bytes for lane in stats.lanes.values())
        seen.append((sum(len(entry.uses) for entry in entries.values()), held_bytes))

    async def answered() -> None:
        call = Call.begin(kind)
        async with served.service.open(call):
            if kind == "image":
                await served.service.image("upscale", ImageRequest(), png(8, 8), send, call)
            else:
                await served.service.samples("generate", SamplesRequest(count=2), send, call)

    served.run(answered())
    assert seen == [(0, 0)]


def test_a_dripping_upload_makes_room_for_the_next(serve: Serve) -> None:
    limits = Limits(max_uploads_bytes=3 * MIB, max_upload_bytes=3 * MIB, idle_s=0.5, min_rate_bytes_s=1)
    served = serve(FakeUpscaler(), limits=limits)

    def sent(size: int) -> Iterator[pb.UpscaleStreamRequest]:
        yield pb.UpscaleStreamRequest(header=pb.UpscaleRequest())
        yield pb.UpscaleStreamRequest(data=png(8, 8) + bytes(size))

    with Connection(served.address) as connection:
        stream = connection.call(PATH)
        connection.send(stream, b"".join(message(part.SerializeToString()) for part in sent(MIB)), end=False)
        until(lambda: served.service.stats().uploads_bytes > MIB)
        # At first the newcomer has to wait; later the other had its time. Meanwhile that one sends a little.
        assert refusal(lambda: list(served.stub.UpscaleStream(sent(2 * MIB)))).code() == (
            grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        drop = message(pb.UpscaleStreamRequest(data=bytes(100)).SerializeToString())
        for _ in range(8):
            connection.send(stream, drop, end=False)
            assert not connection.wait_for_end(stream, 0.1)
        answer = list(served.stub.UpscaleStream(sent(2 * MIB), timeout=30))
        assert answer
        assert connection.wait_for_end(stream, 20)
    assert served.service.stats().uploads_bytes == 0


class Ends(Transit):
    """Takes note of which calls are ended. busy: one that does not wait for its client."""

    def __init__(self, busy: Call | None = None) -> None:
        super().__init__(Limits())
        self.ended: list[Call] = []
        self._busy = busy

    def end(self, call: Call, error: Exception) -> bool:
        if call is not self._busy:
            self.ended.append(call)
        return call is not self._busy


def holding(peer: str, size: int, since_s: float) -> Holding:
    return Holding(Call.begin("UpscaleStream", peer=f"ipv4:{peer}"), lambda: size, since_s=since_s)


def test_who_holds_most_goes_first_and_nobody_before_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.core.slow_clients.time.monotonic", lambda: 100.0)
    one, other = holding("192.0.2.1:1", 10, 20.0), holding("192.0.2.1:2", 10, 10.0)
    third, young = holding("192.0.2.2:1", 15, 1.0), holding("192.0.2.3:1", 90, 50.0)
    transit = Ends()
    clients = SlowClients(transit, 60.0, "be quick")
    with clients.holding(one), clients.holding(other), clients.holding(third), clients.holding(young):
        assert [clients.end_one() for _ in range(4)] == [True, True, True, False]
    assert transit.ended == [other.call, third.call, one.call]


def test_a_call_that_does_not_wait_for_its_client_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.core.slow_clients.time.monotonic", lambda: 100.0)
    busy, slow = holding("192.0.2.1:1", 10, 1.0), holding("192.0.2.1:2", 10, 2.0)
    transit = Ends(busy.call)
    clients = SlowClients(transit, 60.0, "be quick")
    with clients.holding(busy), clients.holding(slow):
        assert not clients.end_one([])
        assert clients.end_one([busy, slow])
    assert transit.ended == [slow.call]


def test_only_answers_whose_disk_others_wait_for_are_in_the_way() -> None:
    admission = Admission(max_active_bytes=1000, max_queue_px=10**6, max_disk_bytes=1000)
    leaving = admission.enter(Cost(1, 1, disk_bytes=500))
    running = admission.enter(Cost(1, 1, disk_bytes=100))
    leaving.hold_only(memory_bytes=0, disk_bytes=400)
    assert admission.in_the_way() == []
    admission.enter(Cost(1, 700, disk_bytes=100))
    memory = admission.enter(Cost(1, 700, disk_bytes=100))
    assert not memory.admitted.done()
    assert admission.in_the_way() == []  # the next one waits for memory
    memory.leave()
    disk = admission.enter(Cost(1, 1, disk_bytes=300))
    assert not disk.admitted.done()
    assert admission.in_the_way() == [leaving]
    leaving.leave()
    assert disk.admitted.done()
    running.leave()
