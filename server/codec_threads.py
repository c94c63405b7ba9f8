"""Codecs: the thread pools for decoding and encoding, which keep this work off the event loop and the device threads.

server/service.py and server/pipeline.py await `Codecs.run` for every codec call and get the function's result.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, ParamSpec, TypeVar

from runtime.stopwatch import Activity
from server.calls import Call

P = ParamSpec("P")
T = TypeVar("T")
Pool = Literal["quick", "slow", "writers"]
# More than ever needed: each large picture uses one writer, and --max-active-bytes limits how many run at once.
WRITERS = 1024


class Codecs:
    """Three thread pools.

    "quick" is for headers and small pictures and "slow" for large pictures, so that a thumbnail never waits for a poster.
    "writers" is for answers that are encoded while their bands are still being computed.
    threads: size of "quick" and of "slow".
    """

    def __init__(self, threads: int = os.cpu_count() or 1) -> None:
        self._pools: dict[Pool, ThreadPoolExecutor] = {
            "quick": ThreadPoolExecutor(threads, "codec-quick"),
            "slow": ThreadPoolExecutor(threads, "codec-slow"),
            "writers": ThreadPoolExecutor(WRITERS, "codec-writer"),
        }

    async def run(
        self, pool: Pool, call: Call, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function`, which decodes, on a thread of the pool and return its result, or raise its exception.

        The call's stopwatch counts waiting for a thread as "queue" and the work as "decode".
        """
        return await self._run(pool, call, "decode", partial(function, *args, **kwargs))

    async def encode(
        self, pool: Pool, call: Call, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, of a function that encodes: the call's stopwatch counts the work as "encode"."""
        return await self._run(pool, call, "encode", partial(function, *args, **kwargs))

    async def _run(self, pool: Pool, call: Call, activity: Activity, function: Callable[[], T]) -> T:
        def timed() -> T:
            call.stopwatch.end("queue")
            with call.stopwatch.during(activity):
                return function()

        call.stopwatch.begin("queue")
        return await asyncio.get_running_loop().run_in_executor(self._pools[pool], timed)

    def close(self) -> None:
        """Drop the work that has not started, and wait for the rest."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
