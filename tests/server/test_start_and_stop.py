"""`python -m server` as a process: ready when it says so, draining on a signal, and failing with one sentence."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import ganforge_pb2 as pb
from runtime.bundle import Bundle
from runtime.errors import BundleError, NotReady
from runtime.manifest import Manifest
from runtime.tensors import TensorSpec
from server.client import Client
from server.grpc_front.front import SERVICE_NAME
from server.models.models import Models
from tests.server.bundles import write_generator, write_upscaler
from tests.server.conftest import FakeUpscaler, Serve, Served, held, png, until

ROOT = Path(__file__).resolve().parents[2]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health(served: Served, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(served.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=name)).status


@pytest.mark.parametrize("name", ["", SERVICE_NAME])
def test_not_serving_until_the_models_are_warm(serve: Serve, name: str) -> None:
    served = serve(FakeUpscaler(), ready=False)
    assert health(served, name) == NOT_SERVING
    with pytest.raises(NotReady, match="warming up"):
        served.client.upscale(png(4, 4))
    served.service.ready(served.models)
    served.run(served.server.ready())
    assert health(served, name) == SERVING
    assert served.client.upscale(png(4, 4)).width == 16


def test_reflection_lists_the_service(served: Served) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    assert SERVICE_NAME in [service.name for service in answer.list_services_response.service]


def test_list_models(served: Served) -> None:
    infos = {info.name: info for info in served.client.models()}
    assert list(infos) == ["generator", "plain", "upscaler"]
    assert (infos["upscaler"].task, infos["upscaler"].scale, infos["upscaler"].width) == (
        pb.TASK_UPSCALE,
        4,
        0,
    )
    generator = infos["generator"]
    assert (generator.task, generator.latent_size, generator.width, generator.height) == (
        pb.TASK_GENERATE,
        6,
        8,
        8,
    )
    assert list(generator.class_names) == ["class0", "class1", "class2"]
    assert (generator.precision, generator.backend) == ("float32", "numpy")


def test_draining_lets_calls_under_way_finish_and_refuses_new_ones(serve: Serve) -> None:
    engine = FakeUpscaler()
    served = serve(engine)
    with ThreadPoolExecutor(1) as pool, held(engine):
        under_way = pool.submit(served.client.upscale, png(40, 40))
        engine.entered.wait()
        drained = asyncio.run_coroutine_threadsafe(served.server.drain(20), served.loop)
        with Client(served.address, retry=False) as late:
            until(lambda: not late.serving())
            with pytest.raises(NotReady):
                late.upscale(png(4, 4))
        assert not drained.done()
        engine.gate.set()
        assert under_way.result(30).width == 160
        drained.result(30)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    write_upscaler(folder)
    write_generator(folder)
    return folder


class started:  # noqa: N801 - reads as a function
    """`python -m server` on a free port, from its readiness to the end of the block."""

    def __init__(self, bundles: Path, *flags: str, python: tuple[str, ...] = ("-m", "server")) -> None:
        command = [sys.executable, *python, "--bundles", str(bundles), "--port", "0", *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
        )

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving on 127.0.0.1:"), line + self.process.communicate()[1]
        return self.process, line.removeprefix("serving on ").strip()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_serves_drains_and_logs_one_line_a_call(bundles: Path, number: signal.Signals) -> None:
    with started(bundles) as (process, address):
        with Client(address) as client:
            assert client.serving()
            answer = client.upscale(png(50, 40))
            assert (answer.width, answer.height) == (200, 160)
            assert answer.timing.backend == "openvino"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out == ""
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    (call,) = [line for line in lines if line["event"] == "call"]
    assert (call["method"], call["code"], call["size"]) == ("Upscale", "OK", "50×40 png → 200×160 png")
    assert call["request_id"]
    assert call["ms"] > 0
    assert {"warm", "draining", "stopped"} <= {line["event"] for line in lines}


def fails(*arguments: str) -> str:
    """`python -m server` ends with an error; its last line on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "serving on" not in done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_folder_without_bundles_fails_in_a_sentence(tmp_path: Path) -> None:
    assert "holds no bundle" in fails("--bundles", str(tmp_path))
    assert "no such folder" in fails("--bundles", str(tmp_path / "nowhere"))


def test_an_altered_bundle_fails_in_a_sentence(bundles: Path, tmp_path: Path) -> None:
    shutil.copytree(bundles, tmp_path / "bundles")
    graph = next((tmp_path / "bundles").glob("*/model.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    assert "was altered" in fails("--bundles", str(tmp_path / "bundles"))


def test_the_default_of_a_task_is_chosen_by_a_flag(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_upscaler(tmp_path, name)
    assert "the models that can upscale are first, second" in fails(
        "--bundles", str(tmp_path), "--default", "upscale=third"
    )
    with started(tmp_path, "--default", "upscale=second") as (_, address), Client(address) as client:
        assert client.upscale(png(5, 5)).model == "second"


def test_a_device_that_is_not_here_fails_in_a_sentence(bundles: Path) -> None:
    message = fails("--bundles", str(bundles), "--backend", "openvino", "--device", "cuda:7")
    assert "cuda:7" in message


def test_an_upscaler_of_other_than_rgb_is_refused(tmp_path: Path) -> None:
    grey = TensorSpec("image", "float32", ("N", 1, "H", "W"), (0.0, 1.0))
    manifest = Manifest("grey", "upscale", "float32", (grey,), (grey,), tile_sizes=(32,))
    with pytest.raises(BundleError, match="grey: 'image' has 1 channels"):
        Models.open([Bundle(tmp_path, manifest)])


def test_a_taken_port_fails_in_a_sentence(bundles: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen" in fails("--bundles", str(bundles), "--port", str(taken.getsockname()[1]))


def test_the_serving_side_works_with_torch_unimportable(bundles: Path) -> None:
    """Neither torch nor anything else of the export extra can be imported in this server."""
    blocked = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnxscript", "safetensors", "matplotlib", "export"}:
            raise ImportError(name + " is blocked here")
sys.meta_path.insert(0, Blocked())
runpy.run_module("server", run_name="__main__", alter_sys=True)
"""
    with started(bundles, python=("-c", blocked)) as (_, address), Client(address) as client:
        answer = client.upscale(png(30, 20))
        assert (answer.width, answer.height) == (120, 80)
        assert len(client.generate(2, model="generator", seed=1).images) == 2
