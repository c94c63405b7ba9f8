"""Calls that hold disk while they wait for their clients: images that arrive in pieces, and answers on disk that leave.

A client may take its time as long as nobody else needs that disk. When others do, a call that has held it for `limits.idle_s`
may be ended: of the client that holds most, the one that has held it longest. server/core/uploads.py asks for room for
uploads, and server/core/images.py registers the answers on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from runtime.errors import Overloaded
from runtime.lane import Ticket
from server.core.calls import Call
from server.core.transit import Transit

CHECK_EVERY_S = 0.2
RETRY_AFTER_S = 2.0


@dataclass(eq=False)
class Holding:
    """Disk that a call holds while it waits for its client. size_bytes: says how much now. end: gives it back at once."""

    call: Call
    size_bytes: Callable[[], int]
    end: Callable[[], None] = lambda: None
    since_s: float = field(default_factory=time.monotonic)


class SlowClients:
    """All calls that hold disk of one kind. patience_s: how long any of them may, whoever needs it. For one event loop.

    advice: what they could have done, for the error's message.
    """

    def __init__(self, transit: Transit, patience_s: float, advice: str) -> None:
        self._transit, self._patience_s, self._advice = transit, patience_s, advice
        self._holdings: dict[Holding, None] = {}

    @contextmanager
    def holding(self, holding: Holding) -> Iterator[None]:
        """Context manager: the call may be ended inside the block, by the Overloaded that its wait then raises."""
        self._holdings[holding] = None
        try:
            yield
        finally:
            self._holdings.pop(holding, None)

    def end_one(self, among: Collection[Holding] | None = None) -> bool:
        """End the call that has held its disk longest, of the client that holds most. among: None for all.

        Returns whether there was one that waits for its client and has had its time.
        """
        latest_s = time.monotonic() - self._patience_s
        by_origin: Counter[str] = Counter()
        for holding in self._holdings:
            by_origin[holding.call.origin] += holding.size_bytes()
        slow = [
            each
            for each in (self._holdings if among is None else among)
            if each in self._holdings and each.since_s < latest_s
        ]
        slow.sort(key=lambda each: (-by_origin[each.call.origin], each.since_s))
        error = Overloaded(
            f"others wait for the disk that this call has held for more than {self._patience_s:g} s (--idle-s); "
            + self._advice,
            retry_after_s=RETRY_AFTER_S,
            reason="disk",
        )
        for holding in slow:
            if self._transit.end(holding.call, error):
                del self._holdings[holding]
                holding.end()
                return True
        return False


class AnswersOnDisk:
    """The answers on disk that leave. wanted: which of the admitted requests hold disk that others wait for."""

    def __init__(self, transit: Transit, patience_s: float, wanted: Callable[[], Collection[Ticket]]) -> None:
        self._clients = SlowClients(transit, patience_s, "read faster, or ask for a smaller answer")
        self._wanted = wanted
        self._by_ticket: dict[Ticket, Holding] = {}
        self._checks: asyncio.Task[None] | None = None

    @contextmanager
    def leaving(self, ticket: Ticket, call: Call) -> Iterator[None]:
        """Context manager around sending an answer."""
        holding = Holding(call, lambda: ticket.disk_bytes)
        self._by_ticket[ticket] = holding
        if self._checks is None:
            self._checks = asyncio.create_task(self._check_regularly())
        try:
            with self._clients.holding(holding):
                yield
        finally:
            del self._by_ticket[ticket]
            if not self._by_ticket:
                self._checks.cancel()
                self._checks = None

    async def _check_regularly(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            self._clients.end_one(
                [self._by_ticket[each] for each in self._wanted() if each in self._by_ticket]
            )
