"""Estimates in the service: known from the warm-up on, told beside the truth, and used before any pixel is decoded."""

from __future__ import annotations

import time

import grpc
import pytest

from protos import ganforge_pb2 as pb
from runtime.picture_work import PictureWork
from server.limits import Limits
from tests.server.conftest import (
    FakeGenerator,
    FakeUpscaler,
    Serve,
    held,
    memory_for_one,
    png,
    refusal,
    until,
)


class Warm(FakeUpscaler):
    """Says that it needs a second for each thousand pixels."""

    @property
    def warm_seconds_per_px(self) -> float:
        return 1e-3


def test_the_warm_ups_speed_counts_before_anything_ran(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Warm()
    served = serve(engine)
    monkeypatch.setattr(PictureWork, "decode", lambda *_: pytest.fail("decoded a refused picture"))
    started_s = time.monotonic()
    error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=png(200, 200)), timeout=20))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # 64 tiles of 32×32 are 65.5 s at that speed.
    assert "the answer would take about 65.5" in error.details()
    assert time.monotonic() - started_s < 5
    assert engine.items_run == 0


def test_a_busy_server_says_when_it_could_meet_the_deadline(serve: Serve) -> None:
    engine = Warm()
    served = serve(engine, limits=Limits(max_active_bytes=memory_for_one(60, 60)))
    with held(engine):
        first = served.stub.Upscale.future(pb.UpscaleRequest(image=png(60, 60)))  # 9.2 s at that speed
        until(lambda: served.admission.working_bytes > 0)
        error = refusal(lambda: served.stub.Upscale(pb.UpscaleRequest(image=png(60, 60)), timeout=12))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the deadline is in 1" in error.details()
        engine.gate.set()
        assert first.result(30).width == 240


@pytest.mark.parametrize("method", ["Upscale", "Generate"])
def test_the_estimate_is_told_beside_the_truth(serve: Serve, method: str) -> None:
    served = serve(FakeUpscaler(), FakeGenerator())
    for _ in range(3):
        timing = (
            served.client.upscale(png(64, 64)).timing
            if method == "Upscale"
            else served.client.generate(8, model="generator").timing
        )
    assert 0 < timing.estimate_ms < 100 * timing.total_ms
    until(lambda: served.calls("OK") >= 3)
    lines = [line for line in served.lines if line.get("method") == method]
    assert lines[-1]["estimate_ms"] == pytest.approx(timing.estimate_ms, abs=0.1)
