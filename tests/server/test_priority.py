"""Priority and fairness, by real clients: a flood of one does not delay another, and batch requests give way but go on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos import ganforge_pb2 as pb
from runtime import pixels
from runtime.errors import InvalidInput
from runtime.shares import Priority
from runtime.tensors import Array
from server.client import Client
from server.limits import Limits
from tests.server.client_runs import done, make_photos
from tests.server.conftest import FakeGenerator, FakeUpscaler, Serve, Served, held, png, refusal, until

FLOOD = 40
# So many thumbnails run at once: at the default limits, the rest would wait for admission and not for the device.
ROOM = Limits(max_active_bytes=2**31)


class Recorder(FakeUpscaler):
    """Remembers the mean of each tile, in the order in which they ran, one a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_sizes = (1,)
        self.shades: list[int] = []

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.shades.extend(round(float(image.mean()) * 255) for image in inputs["image"])
        return super()._run(inputs)


def shade(level: int, side: int = 32) -> bytes:
    return pixels.encode(np.full((side, side, 3), level, np.uint8), "png")


def ran_after(served: Served, engine: Recorder, flood: Any, one: Any) -> int:
    """How many tiles of the flood ran before the one that came after all of them."""
    scheduler = next(iter(served.models)).scheduler
    with ThreadPoolExecutor(FLOOD + 1) as pool:
        with held(engine):
            calls = [pool.submit(flood) for _ in range(FLOOD)]
            until(lambda: scheduler.stats().jobs_waiting == FLOOD - 1)  # the other is at the gate
            engine.shades.clear()
            calls.append(pool.submit(one))
            until(lambda: scheduler.stats().jobs_waiting == FLOOD)
        for call in calls:
            call.result(30)
    return engine.shades.index(200)


def test_the_flood_of_one_client_hardly_delays_another(serve: Serve) -> None:
    engine = Recorder()
    served = serve(engine, limits=ROOM)
    # With other options than the first client's, gRPC makes another connection.
    with Client(served.address, retry=False, max_message_bytes=2**25) as other:
        first = ran_after(
            served, engine, lambda: served.client.upscale(shade(50)), lambda: other.upscale(shade(200))
        )
    assert first <= 3


@pytest.mark.parametrize("priority", ["interactive", "batch"])
def test_of_one_clients_requests_the_interactive_one_goes_before_the_batch(
    serve: Serve, priority: Priority
) -> None:
    engine = Recorder()
    served = serve(engine, limits=ROOM)
    first = ran_after(
        served,
        engine,
        lambda: served.client.upscale(shade(50), priority="batch"),
        lambda: served.client.upscale(shade(200), priority=priority),
    )
    assert first <= 3 if priority == "interactive" else first > FLOOD // 2


def test_batch_requests_go_on_while_interactive_ones_wait(serve: Serve) -> None:
    engine = Recorder()
    served = serve(engine, limits=ROOM)
    first = ran_after(
        served,
        engine,
        lambda: served.client.upscale(shade(50)),
        lambda: served.client.upscale(shade(200), priority="batch"),
    )
    assert first <= 3 + 8


def test_an_unknown_priority_is_refused(serve: Serve) -> None:
    served = serve(FakeUpscaler(), FakeGenerator())
    for call in (
        lambda: served.stub.Upscale(pb.UpscaleRequest(image=png(8, 8), priority=7)),  # type: ignore[arg-type]
        lambda: served.stub.Generate(pb.GenerateRequest(count=1, priority=7)),  # type: ignore[arg-type]
    ):
        error = refusal(call)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "priority: got 7, expected one of 1 (interactive), 2 (batch)" in error.details()
    with pytest.raises(InvalidInput, match="expected one of interactive, batch"):
        served.client.upscale(png(8, 8), priority="urgent")  # type: ignore[arg-type]
    assert len(served.client.generate(1, priority="batch").images) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["photos/", "out/"], {"batch"}),
        (["photos/", "out/", "--priority", "interactive"], {"interactive"}),
        (["photos/a.png", "out.png"], {"interactive"}),
        (["photos/a.png", "out.png", "--priority", "batch"], {"batch"}),
    ],
)
def test_several_pictures_are_sent_as_batch_unless_told_otherwise(
    serve: Serve, tmp_path: Path, arguments: list[str], expected: set[str]
) -> None:
    served = serve(FakeUpscaler())
    make_photos(tmp_path)
    paths = [f"{tmp_path}/{argument}" for argument in arguments[:2]]
    before = len(served.lines)
    done(served, "upscale", *paths, *arguments[2:])
    calls = [line for line in served.lines[before:] if line.get("method", "").startswith("Upscale")]
    assert {line.get("priority") for line in calls} == expected, calls
