"""Codecs: decodes and encodes on threads of their own, off the event loop and the device threads.

server/core/images.py, samples.py and pipeline.py await `Codecs.run` for every codec call and get the function's result.
When a call ends early, its work that waits is dropped and its work that runs is stopped.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, ParamSpec, TypeVar

from runtime.stopwatch import Activity
from server.core.calls import Call
from server.core.fair_threads import FairThreads
from server.limits import QUICK_FILE_BYTES, QUICK_PIXELS

P = ParamSpec("P")
T = TypeVar("T")
Pool = Literal["quick", "slow", "writers"]
# More than ever needed: each large picture uses one writer, and --max-active-bytes limits how many run at once.
WRITERS = 1024
# Large pictures give way to small ones on the CPU, as far as the operating system is concerned.
NICENESS: Mapping[Pool, int] = {"quick": 0, "slow": 5, "writers": 5}
# What every file costs beside its pixels, in pixels: libvips sets itself up, for about 1 ms.
FILE_PX = 2**14
# How long a call that ends early waits for its work to stop, and a server that ends for all work.
STOP_S = 2.0


@dataclass(frozen=True)
class Work:
    """What a codec function does: decode or encode some pixels of a format. pool: where it runs. files: how many it is."""

    pool: Pool
    activity: Literal["decode", "encode"]
    format: str = ""
    pixels: int = 0
    files: int = 1

    @property
    def cost_px(self) -> int:
        """What it costs the thread, as pixels."""
        return self.files * FILE_PX + self.pixels


def pool_for(files: int, pixels: int, source_bytes: int = 0) -> Pool:
    """The threads for an answer of so many files and pixels: nothing large keeps small answers waiting.

    source_bytes: of the file that the picture comes in.
    """
    small = (files - 1) * FILE_PX + pixels <= QUICK_PIXELS
    return "quick" if small and source_bytes <= QUICK_FILE_BYTES else "slow"


def checking(source_bytes: int = 0) -> Work:
    """Reading a header and checking parameters."""
    return Work(pool_for(1, 0, source_bytes), "decode")


@dataclass(frozen=True)
class CodecStats:
    """busy, waiting: threads at work and tasks that wait for one now, by pool.

    seconds, pixels: of all work done so far, by (activity, format); for estimates of how long a picture takes.
    """

    busy: Mapping[str, int]
    waiting: Mapping[str, int]
    seconds: Mapping[tuple[str, str], float]
    pixels: Mapping[tuple[str, str], int]


class Codecs:
    """Three pools of threads, each shared fairly among the calls.

    "quick" is for headers and small answers and "slow" for large ones, so that a thumbnail never waits for a poster.
    "writers" is for answers that are encoded while their bands are still being computed.
    threads: size of "quick" and of "slow".
    """

    def __init__(self, threads: int = os.cpu_count() or 1) -> None:
        sizes: Mapping[Pool, int] = {"quick": threads, "slow": threads, "writers": WRITERS}
        names: Mapping[Pool, str] = {"quick": "codec-quick", "slow": "codec-slow", "writers": "codec-writer"}
        self._pools = {
            pool: FairThreads(size, names[pool], niceness=NICENESS[pool]) for pool, size in sizes.items()
        }
        self._lock = threading.Lock()
        self._seconds: dict[tuple[str, str], float] = {}
        self._pixels: dict[tuple[str, str], int] = {}

    async def run(
        self, work: Work, call: Call, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function` on a thread and return its result, or raise its exception.

        The call's stopwatch counts waiting for a thread as "queue" and the work as `work.activity`. If this is cancelled, work
        that has not started is dropped; else `call.stop` is told, and the cancellation waits up to STOP_S for the work to
        end, so that its memory is free when the call gives it back.
        """
        running = partial(function, *args, **kwargs)
        call.stopwatch.begin("queue")
        task = self._pools[work.pool].submit(id(call), work.cost_px, lambda: self._timed(work, call, running))
        done = asyncio.wrap_future(task.done)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if self._pools[work.pool].drop(task):
                call.stopwatch.end("queue")
                raise
            call.stop.stop()
            done.add_done_callback(_retrieved)
            await asyncio.wait([done], timeout=STOP_S)
            raise

    def stats(self) -> CodecStats:
        """What the threads do now, and did so far."""
        with self._lock:
            seconds, pixels = dict(self._seconds), dict(self._pixels)
        pools = self._pools.items()
        return CodecStats(
            {name: pool.busy for name, pool in pools},
            {name: pool.waiting for name, pool in pools},
            seconds,
            pixels,
        )

    def close(self) -> None:
        """Drop the work that has not started, and wait up to STOP_S for the rest."""
        end_s = time.monotonic() + STOP_S
        for pool in self._pools.values():
            pool.close(within_s=max(0.0, end_s - time.monotonic()))

    def _timed(self, work: Work, call: Call, function: Callable[[], T]) -> T:
        activity: Activity = work.activity
        call.stopwatch.end("queue")
        start_s = time.thread_time()  # a writer's time is not that in which it waits for bands
        try:
            with call.stopwatch.during(activity):
                call.stop.check()
                return function()
        finally:
            key = (work.activity, work.format)
            with self._lock:
                self._seconds[key] = self._seconds.get(key, 0.0) + time.thread_time() - start_s
                self._pixels[key] = self._pixels.get(key, 0) + work.pixels


def _retrieved(done: asyncio.Future[object]) -> None:
    """Look at the error of work whose call has ended, so that asyncio does not report it."""
    if not done.cancelled():
        done.exception()
