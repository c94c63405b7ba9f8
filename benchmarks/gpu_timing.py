"""Times a call for benchmarks.gpu: by CUDA events on a GPU, by the wall clock elsewhere. Medians, after a warm-up."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

WARM_UPS = 3
LEAST, MOST = 5, 200
CEILING_SIDE = {"cuda": 8192, "cpu": 64}


def device_ms(call: Callable[[], object], device: torch.device, *, budget_s: float) -> float:
    """Median time of `call` on the device, in ms, for work that is enqueued there."""
    if device.type != "cuda":
        return wall_ms(call, budget_s=budget_s)
    for _ in range(WARM_UPS):
        call()
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    torch.cuda.synchronize(device)
    times = []
    for _ in range(_repeats(time.perf_counter() - began, budget_s)):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize(device)
    return statistics.median(start.elapsed_time(end) for start, end in times)


def wall_ms(call: Callable[[], object], *, budget_s: float) -> float:
    """Median time of `call` by the wall clock, in ms, for calls that return when their work is done."""
    for _ in range(WARM_UPS):
        call()
    first = _once_s(call)
    return 1000 * statistics.median(_once_s(call) for _ in range(_repeats(first, budget_s)))


def calls_per_s(call: Callable[[], object], *, callers: int, budget_s: float) -> float:
    """How many calls are done a second when `callers` threads call all the time."""
    each = _repeats(_once_s(call), budget_s)

    def loop() -> None:
        for _ in range(each):
            call()

    with ThreadPoolExecutor(callers) as pool:
        began = time.perf_counter()
        jobs = [pool.submit(loop) for _ in range(callers)]
        for job in jobs:
            job.result()
        return callers * each / (time.perf_counter() - began)


def matrix_ceiling_tflops(device: torch.device, dtype: torch.dtype, *, budget_s: float) -> float:
    """What a large matrix product reaches here, in TFLOP/s. The paths' speeds are given as shares of it."""
    side = CEILING_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=dtype)
    taken_ms = device_ms(lambda: torch.mm(a, b, out=out), device, budget_s=budget_s)
    return 2 * side**3 / (taken_ms * 1e9)


def _once_s(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _repeats(one_s: float, budget_s: float) -> int:
    return max(LEAST, min(MOST, int(budget_s / max(one_s, 1e-6))))
