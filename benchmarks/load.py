"""Closed loops: so many callers, each of which asks again as soon as it was answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import grpc
import numpy as np

from protos import ganforge_pb2 as pb
from protos import ganforge_pb2_grpc as pb_grpc

MESSAGE_BYTES = 256 * 2**20
# The first answer of each caller is warm-up and does not count, unless it took so long that warming up is lost in it.
WARM_UP_S = 5.0
Stub = Any  # pb_grpc.ImageGeneratorStub over grpc.aio, which has no types
Call = Callable[[Stub], Awaitable[Any]]


@dataclass(frozen=True)
class Loop:
    """How long to ask: at least `duration_s`, and until `min_calls` were answered, but never beyond `max_s`."""

    duration_s: float
    min_calls: int = 12
    max_s: float = 240.0

    def over(self, elapsed_s: float, answered: int) -> bool:
        return elapsed_s >= self.max_s or (elapsed_s >= self.duration_s and answered >= self.min_calls)


@dataclass(frozen=True)
class Measured:
    """One loop's answers. per_s: answers a second."""

    callers: int
    calls: int
    per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float

    def report(self) -> dict[str, float]:
        return {key: round(value, 3) for key, value in asdict(self).items()}


def through_server(address: str, call: Call, *, callers: int, loop: Loop) -> Measured:
    """`call` through gRPC from `callers` coroutines of this process."""
    return asyncio.run(_through_server(address, call, callers, loop))


async def _through_server(address: str, call: Call, callers: int, loop: Loop) -> Measured:
    spans: list[tuple[float, float]] = []
    started_s = time.perf_counter()

    async with channel(address) as connection:
        stub = pb_grpc.ImageGeneratorStub(connection)

        async def caller() -> None:
            begun_s = time.perf_counter()
            await call(stub)
            if time.perf_counter() - begun_s > WARM_UP_S:
                spans.append((begun_s, time.perf_counter()))
            while not loop.over(time.perf_counter() - started_s, len(spans)):
                begun_s = time.perf_counter()
                await call(stub)
                spans.append((begun_s, time.perf_counter()))

        await asyncio.gather(*(caller() for _ in range(callers)))
    return summary(spans, callers)


def direct(call: Callable[[], object], *, callers: int, loop: Loop) -> Measured:
    """`call` from `callers` threads of this process."""
    spans: list[tuple[float, float]] = []
    lock = threading.Lock()
    started_s = time.perf_counter()

    def caller() -> None:
        begun_s = time.perf_counter()
        call()
        if time.perf_counter() - begun_s > WARM_UP_S:
            with lock:
                spans.append((begun_s, time.perf_counter()))
        while not loop.over(time.perf_counter() - started_s, len(spans)):
            begun_s = time.perf_counter()
            call()
            with lock:
                spans.append((begun_s, time.perf_counter()))

    with ThreadPoolExecutor(callers) as pool:
        for future in [pool.submit(caller) for _ in range(callers)]:
            future.result()
    return summary(spans, callers)


def at_once(address: str, calls: Sequence[Call]) -> list[float]:
    """Every call at the same moment, each from a connection of its own; milliseconds of each."""

    async def run() -> list[float]:
        started_s = time.perf_counter()

        async def one(call: Call) -> float:
            async with channel(address) as connection:
                await call(pb_grpc.ImageGeneratorStub(connection))
            return (time.perf_counter() - started_s) * 1e3

        return list(await asyncio.gather(*map(one, calls)))

    return asyncio.run(run())


def beside(address: str, call: Call, others: Sequence[Call], *, loop: Loop) -> Measured:
    """`call` from one caller, while each of `others` asks in a loop."""

    async def run() -> Measured:
        async with channel(address) as connection, channel(address) as busy:
            stub, busy_stub = pb_grpc.ImageGeneratorStub(connection), pb_grpc.ImageGeneratorStub(busy)

            async def ask_for_ever(other: Call) -> None:
                while True:
                    await other(busy_stub)

            tasks = [asyncio.create_task(ask_for_ever(other)) for other in others]
            await asyncio.sleep(1.0 if others else 0.0)  # until the others are in work
            spans: list[tuple[float, float]] = []
            started_s = time.perf_counter()
            while not loop.over(time.perf_counter() - started_s, len(spans)):
                begun_s = time.perf_counter()
                await call(stub)
                spans.append((begun_s, time.perf_counter()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return summary(spans, 1)

    return asyncio.run(run())


def channel(address: str) -> grpc.aio.Channel:
    caps = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
    ]
    # A channel of its own, instead of the process's shared connection to this address.
    return grpc.aio.insecure_channel(address, [*caps, ("grpc.use_local_subchannel_pool", 1)])


def upscale(model: str, image: bytes) -> Call:
    """An Upscale of one PNG, answered as PNG."""
    request = pb.UpscaleRequest(model=model, image=image, format=pb.IMAGE_FORMAT_PNG)
    return lambda stub: stub.Upscale(request)


def generate(model: str, count: int) -> Call:
    """A Generate of `count` samples, answered as PNG."""
    request = pb.GenerateRequest(model=model, count=count, seed=1, format=pb.IMAGE_FORMAT_PNG)
    return lambda stub: stub.Generate(request)


def summary(spans: Sequence[tuple[float, float]], callers: int) -> Measured:
    """Percentiles of all, and the rate: the slope of the line through the answers' times of completion.

    A line, since answers that take seconds come in waves: counted from one moment to another, a wave more or less
    would be in it.
    """
    if not spans:
        nothing = float("nan")
        return Measured(callers, 0, nothing, nothing, nothing, nothing)
    latencies_ms = [(end - begin) * 1e3 for begin, end in spans]
    p50, p90, p99 = (float(one) for one in np.percentile(latencies_ms, (50, 90, 99)))
    ends = np.sort([end for _, end in spans])
    if len(spans) > 2 * callers:
        per_s = float(np.polyfit(ends - ends[0], np.arange(len(ends)), 1)[0])
    else:
        per_s = len(spans) / float(ends[-1] - min(begin for begin, _ in spans))
    return Measured(callers, len(spans), per_s, p50, p90, p99)
