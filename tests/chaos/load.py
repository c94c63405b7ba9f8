"""Other clients: small calls of every kind, one after another in a few threads, each with its outcome counted."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Self

from tests.chaos import calls

CLIENTS = 3


class Load:
    """A context manager: the clients call while the block runs. `outcomes` counts how their calls ended."""

    def __init__(self, address: str, *, active: bool = True) -> None:
        self.outcomes: Counter[str] = Counter()
        self._address, self._over = address, threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,), daemon=True)
            for number in range(CLIENTS * active)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        names = list(calls.REQUESTS)
        with calls.channel(self._address) as connection:
            while not self._over.is_set():
                name = names[number % len(names)]
                running = calls.start(connection, name, "small", request_id=f"load-{number}", timeout_s=30.0)
                self.outcomes[running.outcome()] += 1
                number += 1
                self._over.wait(0.02)
