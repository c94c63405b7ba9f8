"""A real grpc.aio server on a free port, over engines that compute in numpy and can be held at a gate."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from structlog.testing import capture_logs

from protos import ganforge_pb2_grpc as pb_grpc
from runtime import pixels
from runtime.admission import LARGEST_SHARE, AdmissionStats
from runtime.backends.base import Engine
from runtime.bundle import Bundle
from runtime.manifest import Manifest
from runtime.picture_work import PictureWork
from runtime.pictures.formats import Encoding
from runtime.pictures.reading import open_picture
from runtime.tensors import Array, TaskName, TensorSpec
from server.client import Client
from server.core.service import Service
from server.grpc_front.front import Keepalive, Server
from server.limits import Limits
from server.models.models import Models
from server.security.access import Access
from server.security.certificates import Certificates

SCALE, TILE, HALO = 4, 32, 4
LATENT, SIDE, CLASSES = 6, 8, 3
MAX_WHOLE_PX = 20_000
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def smooth_and_enlarge(image: Array) -> Array:
    """[N, C, H, W] → [N, C, 4·H, 4·W]: a 3×3 mean, zeros beyond the edge as a network pads, then each pixel four times."""
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = image.shape[2:]
    total = sum(padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3))
    return (np.float32(1 / 9) * total).repeat(SCALE, axis=2).repeat(SCALE, axis=3)


class FakeEngine(Engine):
    """Runs in numpy. `gate` holds every batch once it is cleared; `entered` says that one is there."""

    backend = "numpy"

    def __init__(self, manifest: Manifest, max_batch: int = 4) -> None:
        sizes = tuple(2**n for n in range(max_batch.bit_length()))
        super().__init__(
            Bundle(Path(), manifest), device="CPU", precision="float32", slots=1, batch_sizes=sizes
        )
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.items_run = 0
        self.failure: Exception | None = None

    def run(self, inputs: Any) -> dict[str, Array]:
        self.entered.set()
        self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.items_run += len(next(iter(inputs.values())))
        return super().run(inputs)


class FakeUpscaler(FakeEngine):
    def __init__(self, name: str = "upscaler") -> None:
        image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0.0, 1.0))
        upscaled = TensorSpec("upscaled", "float32", ("N", 3, "SH", "SW"), (0.0, 1.0))
        manifest = Manifest(name, "upscale", "float32", (image,), (upscaled,), SCALE, 1, (TILE,), HALO)
        super().__init__(manifest)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return {"upscaled": smooth_and_enlarge(inputs["image"])}


def mirrored_at_the_mean(image: Array) -> Array:
    """[N, 3, H, W] in [-1, 1] → the same size: each channel mirrored at its mean over the whole picture, and halved."""
    return (image.mean(axis=(2, 3), keepdims=True) * 2 - image) / 2


class FakeTranslator(FakeEngine):
    """Must see pictures whole, as a network with instance normalisation does; values in [-1, 1] at both ends.

    scale: each pixel of the answer so many times along a side.
    """

    def __init__(self, name: str = "translator", *, max_whole_px: int = MAX_WHOLE_PX, scale: int = 1) -> None:
        image = TensorSpec("image", "float32", ("N", 3, "H", "W"), (-1.0, 1.0))
        translated = TensorSpec("translated", "float32", ("N", 3, "SH", "SW"), (-1.0, 1.0))
        manifest = Manifest(
            name,
            "translate",
            "float32",
            (image,),
            (translated,),
            scale,
            tiled=False,
            max_whole_px=max_whole_px,
        )
        super().__init__(manifest)

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        scale = self.manifest.scale
        translated = mirrored_at_the_mean(inputs["image"])
        return {"translated": translated.repeat(scale, axis=2).repeat(scale, axis=3)}


class FakeGenerator(FakeEngine):
    """Sample = tanh of a fixed mix of the latent, with the label's own offset."""

    def __init__(self, name: str = "generator", classes: int = CLASSES) -> None:
        inputs = [TensorSpec("latent", "float32", ("N", LATENT))]
        if classes:
            inputs.append(TensorSpec("label", "int64", ("N",), (0, classes - 1)))
        sample = TensorSpec("sample", "float32", ("N", 3, SIDE, SIDE), (-1.0, 1.0))
        names = tuple(f"class{label}" for label in range(classes))
        super().__init__(
            Manifest(
                name,
                "generate",
                "float32",
                tuple(inputs),
                (sample,),
                latent_size=LATENT,
                classes=classes,
                class_names=names,
            )
        )
        self._mix = np.random.default_rng(0).normal(size=(LATENT, 3 * SIDE * SIDE)).astype(np.float32) / 3

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        mixed = (inputs["latent"] @ self._mix).reshape(-1, 3, SIDE, SIDE)
        if "label" in inputs:
            mixed = mixed + inputs["label"].astype(np.float32)[:, None, None, None]
        return {"sample": np.tanh(mixed)}


@dataclass
class Served:
    """A server that runs on a thread of its own, and ways to reach it."""

    address: str
    models: Models
    server: Server
    service: Service
    loop: asyncio.AbstractEventLoop
    stub: pb_grpc.ImageGeneratorStub
    client: Client
    channel: grpc.Channel
    lines: list[MutableMapping[str, Any]]

    def engine(self, name: str) -> FakeEngine:
        return next(model.engine for model in self.models if model.name == name)  # type: ignore[return-value]

    def calls(self, code: str) -> int:
        """How many calls ended with that status, by the server's own log lines."""
        return sum(line["event"] == "call" and line["code"] == code for line in self.lines)

    @property
    def admission(self) -> AdmissionStats:
        """What admission holds now."""
        stats = self.service.stats().admission
        assert stats is not None
        return stats

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)


Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def serve(loop: asyncio.AbstractEventLoop) -> Iterator[Serve]:
    """serve(engine, …, limits=Limits(…), ready=True, …) → Served; all end with the module."""
    running: list[Served] = []

    def start(
        *engines: Engine,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        ready: bool = True,
        defaults: Mapping[TaskName, str] | None = None,
        keepalive: Keepalive = Keepalive(),  # noqa: B008 - frozen
        certificates: Certificates | None = None,
        access: Access = Access(),  # noqa: B008 - without tokens it holds nothing
        reflection: bool = True,
        **model_options: Any,
    ) -> Served:
        models = Models(engines, defaults, **model_options)

        async def begin() -> tuple[Server, Service, int]:
            service = Service(limits)
            server = Server(service, access=access, reflection=reflection, keepalive=keepalive)
            port = await server.start("127.0.0.1", 0, certificates)
            if ready:
                service.ready(models)
                await server.ready()
            return server, service, port

        server, service, port = asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
        address = f"127.0.0.1:{port}"
        channel = grpc.insecure_channel(address, OPTIONS)
        stub = pb_grpc.ImageGeneratorStub(channel)
        served = Served(
            address, models, server, service, loop, stub, Client(address, retry=False), channel, lines
        )
        running.append(served)
        return served

    with capture_logs() as lines:
        yield start
    for served in running:
        served.client.close()
        served.channel.close()
        for model in served.models:
            if isinstance(model.engine, FakeEngine):
                model.engine.gate.set()
        served.run(served.server.drain(1))
        served.service.close()


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    """An upscaler, a generator with classes and one without."""
    return serve(FakeUpscaler(), FakeGenerator(), FakeGenerator("plain", classes=0))


@pytest.fixture
def upscaler(serve: Serve) -> Iterator[tuple[Served, FakeUpscaler]]:
    """An upscaler of the test's own, whose gate the test may close."""
    engine = FakeUpscaler()
    yield serve(engine), engine
    engine.gate.set()


def picture(width: int, height: int, seed: int = 0) -> Array:
    """[H, W, 3] uint8: noise, so that every misplaced pixel shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(width: int, height: int, seed: int = 0) -> bytes:
    return pixels.encode(picture(width, height, seed), "png")


def memory_for_one(width: int, height: int) -> int:
    """--max-active-bytes with which one such picture at a time runs; the next, unless tiny, waits until it has ended."""
    file = png(width, height)
    picture = PictureWork(
        FakeUpscaler(),
        open_picture(file, max_pixels=width * height),
        width=width * SCALE,
        height=height * SCALE,
        encoding=Encoding("png"),
        file_bytes=len(file),
    )
    return math.ceil(picture.cost.memory_bytes / LARGEST_SHARE)


def expected(image: Array) -> Array:
    """[H, W, 3] uint8 → what the fake upscaler makes of the whole image at once."""
    whole = smooth_and_enlarge(pixels.to_float(image)[None])[0]
    return pixels.to_uint8(whole.transpose(1, 2, 0))


def levels_apart(left: Array, right: Array) -> int:
    """The largest difference of two uint8 images of one shape, in levels."""
    assert left.shape == right.shape
    return int(np.abs(left.astype(np.int16) - right).max())


def decoded(image: bytes) -> Array:
    return pixels.decode(image, max_pixels=2**28)


def refusal(call: Callable[[], object]) -> Any:
    """The error that a call ends with: a grpc.RpcError that is a grpc.Call as well, which their types do not say."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for something that another thread is about to do."""
    pause, end_s = threading.Event(), time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "what was waited for did not come"
        pause.wait(0.001)


@contextmanager
def held(engine: FakeEngine) -> Iterator[None]:
    """Holds every batch at the gate inside the block."""
    engine.entered.clear()
    engine.gate.clear()
    try:
        yield
    finally:
        engine.gate.set()
