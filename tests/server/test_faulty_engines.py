"""A real server whose engines fail: what its clients get, in the answer's Timing, and what the log says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc
from runtime.tensors import Array
from server.grpc_front.front import SERVICE_NAME
from server.launch import launched
from tests.chaos.faulty_server import MODULE
from tests.faulty_engine import Fault, Kind, write
from tests.server.bundles import write_generator, write_upscaler
from tests.server.conftest import decoded, levels_apart, png, refusal, until

TIMEOUT_S = 120
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Faulty:
    channel: grpc.Channel
    stub: pb_grpc.ImageGeneratorStub
    faults: Path
    log: Path

    def upscale(self, timeout_s: float = TIMEOUT_S) -> Any:
        return self.stub.Upscale(pb.UpscaleRequest(image=png(40, 40)), timeout=timeout_s)

    def draw(self) -> Any:
        return self.stub.Generate(pb.GenerateRequest(count=1, seed=1), timeout=TIMEOUT_S)

    def health(self, part: str) -> int:
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME + part)
        return health_pb2_grpc.HealthStub(self.channel).Check(request).status

    def state(self, name: str) -> str:
        listed = self.stub.ListModels(pb.ListModelsRequest()).models
        return next(str(info.state) for info in listed if info.name == name)

    def said(self, event: str) -> list[dict[str, Any]]:
        text = self.log.read_text(encoding="utf-8").splitlines()
        lines = [json.loads(line) for line in text if line.startswith("{")]  # gRPC logs in its own way
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Faulty]:
    folder, faults = tmp_path / "bundles", tmp_path / "faults.json"
    write_upscaler(folder)
    write_generator(folder)
    flags = ("--faults", str(faults))
    with (
        launched(folder, log=tmp_path / "log", module=MODULE, flags=flags) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield Faulty(channel, pb_grpc.ImageGeneratorStub(channel), faults, tmp_path / "log")
        write(faults)  # so that nothing hangs when the server drains


@pytest.fixture
def right(faulty: Faulty) -> Array:
    """The picture of a server without faults."""
    answer = faulty.upscale()
    assert (answer.timing.backend, answer.timing.device, list(answer.timing.recovered)) == (
        "openvino",
        "CPU",
        [],
    )
    return decoded(answer.image)


@pytest.mark.parametrize("kind", ["raise", "nan", "shape", "memory"])
def test_clients_get_their_picture_whatever_the_engine_does(faulty: Faulty, right: Array, kind: Kind) -> None:
    write(faulty.faults, Fault(kind, backend="openvino", model="upscaler"))
    answer = faulty.upscale()
    assert levels_apart(decoded(answer.image), right) <= 1
    assert answer.timing.backend == "onnxruntime"
    assert list(answer.timing.recovered) == ["onnxruntime instead of openvino"]
    assert faulty.upscale().timing.backend == "onnxruntime"  # it stays there
    (replaced,) = faulty.said("engine replaced")
    assert replaced["model"] == "upscaler"
    assert [line["recovered"] for line in faulty.said("call") if "recovered" in line] == [
        "onnxruntime instead of openvino"
    ]


def test_a_model_that_cannot_be_healed_is_unavailable_and_the_others_go_on(faulty: Faulty) -> None:
    write(faulty.faults, Fault("raise", model="upscaler"))
    for _ in range(2):
        error = refusal(faulty.upscale)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "upscaler is unavailable" in error.details()
    assert faulty.draw().timing.backend == "openvino"
    assert (faulty.state("upscaler"), faulty.state("generator")) == ("unavailable", "serving")
    until(lambda: faulty.health("/model/upscaler") == NOT_SERVING)
    assert (faulty.health("/model/generator"), faulty.health("")) == (SERVING, SERVING)
    (unavailable,) = faulty.said("model unavailable")
    assert (unavailable["model"], unavailable["model_available"]) == ("upscaler", False)


@pytest.mark.slow  # nothing hangs before 5 s
def test_a_model_that_hangs_is_healed_while_the_others_go_on(faulty: Faulty, right: Array) -> None:
    write(faulty.faults, Fault("hang", backend="openvino", model="upscaler", times=1))
    start_s = time.monotonic()
    waiting = faulty.stub.Upscale.future(pb.UpscaleRequest(image=png(40, 40)), timeout=TIMEOUT_S)
    faulty.draw()
    assert not waiting.done()
    answer = waiting.result()
    assert 4 < time.monotonic() - start_s < 100
    assert levels_apart(decoded(answer.image), right) <= 1
    assert list(answer.timing.recovered) == ["retried on a fresh engine"]
    assert "given up" in faulty.said("engine failed")[0]["reason"]


def test_samples_are_the_same_from_another_engine(faulty: Faulty) -> None:
    before = decoded(faulty.draw().images[0])
    write(faulty.faults, Fault("nan", backend="openvino"))
    answer = faulty.draw()
    assert answer.timing.backend == "onnxruntime"
    assert int(np.abs(before.astype(int) - decoded(answer.images[0])).max()) <= 1
