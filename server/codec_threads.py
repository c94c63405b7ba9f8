"""The threads that decode and encode, off the event loop and off the device's threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, ParamSpec, TypeVar

from server.calls import Call

P = ParamSpec("P")
T = TypeVar("T")
Pool = Literal["quick", "slow", "writers"]
# Never reached: every large picture in work holds one, and their memory bounds how many there are.
WRITERS = 1024


class Codecs:
    """Three pools: large pictures have their own, so that a thumbnail never waits for a poster to be encoded.

    threads: of "quick" and of "slow". "writers" are for files that are written while their bands still come.
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
        """Run `function` on a thread of the pool; the call's stopwatch counts its wait and its work."""

        def timed() -> T:
            call.stopwatch.end("queue")
            with call.stopwatch.during("codec"):
                return function(*args, **kwargs)

        call.stopwatch.begin("queue")
        return await asyncio.get_running_loop().run_in_executor(self._pools[pool], timed)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
