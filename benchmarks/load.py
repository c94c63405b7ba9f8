"""Load generators: call a server, or an engine in this process, and return throughput and latencies as Measured.

In a closed loop (`through_server`, `direct`) each caller sends its next request when it has its answer. That measures
throughput, but hides latency: while an answer is slow, its caller sends nothing else that would have to wait. The open
loop (`arrivals`) sends requests at random times drawn beforehand, as users do who do not wait for each other, and counts
each latency from the drawn time. Load tools such as ghz and locust only call servers; these loops also call an engine in
this process, in turns with the server. served.py and engines.py call them.
"""

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
from runtime.tasks import Task

MESSAGE_BYTES = 256 * 2**20
# The first answer of each caller is warm-up and does not count, unless it took so long that warming up hardly matters.
WARM_UP_S = 5.0
# The least answers for a percentile to be stated: of fewer it would just be one of the slowest.
LEAST_CALLS_P90, LEAST_CALLS_P99 = 10, 100
Stub = Any  # pb_grpc.ImageGeneratorStub over grpc.aio, which has no types
Call = Callable[[Stub], Awaitable[Any]]
Span = tuple[float, float]  # when a request was sent (or due) and when its answer came, in seconds


@dataclass(frozen=True)
class Duration:
    """How long a loop sends requests: for `duration_s` and until `min_calls` are answered, but for `max_s` at most."""

    duration_s: float
    min_calls: int = 12
    max_s: float = 240.0

    def over(self, elapsed_s: float, answered: int) -> bool:
        return elapsed_s >= self.max_s or (elapsed_s >= self.duration_s and answered >= self.min_calls)


@dataclass(frozen=True)
class Measured:
    """The result of a loop. per_s: answers a second. p50_ms, p90_ms, p99_ms: percentiles of the latency; None where too
    few answers came to state one.
    """

    callers: int
    calls: int
    per_s: float
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None

    def report(self) -> dict[str, float | None]:
        return {key: None if value is None else round(value, 3) for key, value in asdict(self).items()}


def through_server(address: str, call: Call, *, callers: int, duration: Duration) -> Measured:
    """A closed loop through gRPC: `callers` coroutines of this process send `call` again and again."""
    return asyncio.run(_through_server(address, call, callers, duration))


async def _through_server(address: str, call: Call, callers: int, duration: Duration) -> Measured:
    spans: list[Span] = []
    started_s = time.perf_counter()

    async with channel(address) as connection:
        stub = pb_grpc.ImageGeneratorStub(connection)

        async def caller() -> None:
            span = await timed(call, stub)
            if span[1] - span[0] > WARM_UP_S:
                spans.append(span)
            while not duration.over(time.perf_counter() - started_s, len(spans)):
                spans.append(await timed(call, stub))

        await asyncio.gather(*(caller() for _ in range(callers)))
    return summary(spans, callers)


def arrivals(address: str, call: Call, *, per_s: float, calls: int, seed: int = 0) -> Measured:
    """An open loop: `calls` requests at the times of a Poisson process with `per_s` a second on average.

    Latencies count from the time when a request was due. `callers` of the result is 0: no request waits for an answer.
    """
    gaps_s = np.random.default_rng(seed).exponential(1 / per_s, calls)

    async def run() -> list[Span]:
        async with channel(address) as connection:
            stub = pb_grpc.ImageGeneratorStub(connection)
            await call(stub)  # connects
            due_s = time.perf_counter() + np.cumsum(gaps_s)

            async def send(at_s: float) -> Span:
                await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
                await call(stub)
                return at_s, time.perf_counter()

            return list(await asyncio.gather(*(send(float(at_s)) for at_s in due_s)))

    return summary(asyncio.run(run()), 0)


def direct(call: Callable[[], object], *, callers: int, duration: Duration) -> Measured:
    """A closed loop without a server: `callers` threads of this process run `call` again and again."""
    spans: list[Span] = []
    lock = threading.Lock()
    started_s = time.perf_counter()

    def timed_call() -> Span:
        begun_s = time.perf_counter()
        call()
        return begun_s, time.perf_counter()

    def caller() -> None:
        span = timed_call()
        if span[1] - span[0] > WARM_UP_S:
            with lock:
                spans.append(span)
        while not duration.over(time.perf_counter() - started_s, len(spans)):
            span = timed_call()
            with lock:
                spans.append(span)

    with ThreadPoolExecutor(callers) as pool:
        for future in [pool.submit(caller) for _ in range(callers)]:
            future.result()
    return summary(spans, callers)


def at_once(address: str, calls: Sequence[Call]) -> list[float]:
    """Send all calls at once, in this order, each on its own connection. The latency of each, in ms, in the same order."""

    async def run() -> list[float]:
        started_s = time.perf_counter()

        async def send(call: Call) -> float:
            async with channel(address) as connection:
                await call(pb_grpc.ImageGeneratorStub(connection))
            return (time.perf_counter() - started_s) * 1e3

        return list(await asyncio.gather(*map(send, calls)))

    return asyncio.run(run())


def beside(address: str, call: Call, others: Sequence[Call], *, duration: Duration) -> Measured:
    """A closed loop with one caller of `call`, while each of `others` is sent again and again by a caller of its own."""

    async def run() -> Measured:
        async with channel(address) as connection, channel(address) as busy:
            stub, busy_stub = pb_grpc.ImageGeneratorStub(connection), pb_grpc.ImageGeneratorStub(busy)

            async def ask_for_ever(other: Call) -> None:
                while True:
                    await other(busy_stub)

            tasks = [asyncio.create_task(ask_for_ever(other)) for other in others]
            await asyncio.sleep(1.0 if others else 0.0)  # until the others keep the server busy
            spans: list[Span] = []
            started_s = time.perf_counter()
            while not duration.over(time.perf_counter() - started_s, len(spans)):
                spans.append(await timed(call, stub))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return summary(spans, 1)

    return asyncio.run(run())


async def timed(call: Call, stub: Stub) -> Span:
    begun_s = time.perf_counter()
    await call(stub)
    return begun_s, time.perf_counter()


def channel(address: str) -> grpc.aio.Channel:
    caps = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
    ]
    # A channel of its own, instead of the process's shared connection to this address.
    return grpc.aio.insecure_channel(address, [*caps, ("grpc.use_local_subchannel_pool", 1)])


def picture_call(task: Task, model: str, image: bytes) -> Call:
    """A call of the RPC named after `task` with a PNG file, answered as PNG."""
    rpc = task.name.capitalize()
    request = getattr(pb, f"{rpc}Request")(model=model, image=image, format=pb.IMAGE_FORMAT_PNG)
    return lambda stub: getattr(stub, rpc)(request)


def generate_call(model: str, count: int) -> Call:
    """A call of Generate for `count` samples, answered as PNG."""
    request = pb.GenerateRequest(model=model, count=count, seed=1, format=pb.IMAGE_FORMAT_PNG)
    return lambda stub: stub.Generate(request)


def summary(spans: Sequence[Span], callers: int) -> Measured:
    """The percentiles of the latencies and the rate of answers: the slope of a line fitted to their completion times.

    Slow answers come in waves, a batch at a time. Counting those between two moments would include a wave more or less.
    """
    if not spans:
        nothing = float("nan")
        return Measured(callers, 0, nothing, nothing, None, None)
    latencies_ms = [(end - begin) * 1e3 for begin, end in spans]
    p50, p90, p99 = (float(value) for value in np.percentile(latencies_ms, (50, 90, 99)))
    ends = np.sort([end for _, end in spans])
    if len(spans) > 2 * max(callers, 1):
        per_s = float(np.polyfit(ends - ends[0], np.arange(len(ends)), 1)[0])
    else:
        per_s = len(spans) / float(ends[-1] - min(begin for begin, _ in spans))
    return Measured(
        callers,
        len(spans),
        per_s,
        p50,
        p90 if len(spans) >= LEAST_CALLS_P90 else None,
        p99 if len(spans) >= LEAST_CALLS_P99 else None,
    )
