"""The threads that decode and encode, so that neither the event loop nor the device waits for it.

server/service.py and server/pipeline.py run every codec call through `Codecs.run`.
"""

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
# Never reached: each large picture in work takes one writer, and --max-active-bytes limits how many there are.
WRITERS = 1024


class Codecs:
    """Three pools: "quick" for headers and small pictures, "slow" for large ones, so that a thumbnail never waits for a
    poster to be encoded; "writers" for answers that are written while their bands are still computed.

    threads: of "quick" and of "slow" each.
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
        """What `function` returns or raises, run on a thread of the pool.

        The call's stopwatch counts the wait for a thread as "queue" and the work as "codec".
        """

        def timed() -> T:
            call.stopwatch.end("queue")
            with call.stopwatch.during("codec"):
                return function(*args, **kwargs)

        call.stopwatch.begin("queue")
        return await asyncio.get_running_loop().run_in_executor(self._pools[pool], timed)

    def close(self) -> None:
        """Wait for what runs; what has not begun is dropped."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
