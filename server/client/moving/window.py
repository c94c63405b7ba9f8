"""in_order: works on a bounded number of items at once and gives back the results in the items' order.

And `uninterrupted`, for what must not be left half done with one of them.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Result = TypeVar("Result")


def in_order(
    items: Iterable[T], work: Callable[[T], Result], *, size: int, abort: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield work(item) for each item, in order. At most `size` items have been taken whose results have not been yielded.

    The first error in the order of the items is raised, and the items after it are dropped. abort: ends running work at
    once; called if Ctrl-C comes while a result is waited for.
    """
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(size) as pool:
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) == size:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        except KeyboardInterrupt:
            abort()
            raise
        finally:
            for future in running:
                future.cancel()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Context manager: Ctrl-C inside the block is raised at its end."""
    if threading.current_thread() is not threading.main_thread():  # which has none
        yield
        return
    came = False

    def note(number: int, frame: object) -> None:
        nonlocal came
        came = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt
