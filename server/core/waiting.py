"""Connection, with what is in transit on it, and Waiting, a call on it that waits for its client.

server/core/transit.py keeps them up to date, and ends the calls that wait where others need the memory.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from runtime.errors import GanforgeError
from server.core.calls import Call


@dataclass(eq=False)
class Waiting:
    """A call that waits for its client: for a message, or until its answer has left.

    scope: its time limit. leaving: whether it waits for its answer. size_bytes: of that. base_bytes: what its connection
    had received beyond complete messages when it began. ended: why the server ended the call, if it did.
    """

    call: Call
    scope: asyncio.Timeout
    leaving: bool = False
    size_bytes: int = 0
    base_bytes: int = 0
    since_s: float = field(default_factory=time.monotonic)
    ended: GanforgeError | None = None

    def idle_since_s(self) -> float:
        """Since when its client has sent or taken nothing. What the server did in between is no fault of the client."""
        return max(self.since_s, self.call.heard_s) if self.leaving else self.call.heard_s

    def end(self, error: GanforgeError) -> None:
        """End the call with this error."""
        if not self.scope.expired():
            self.ended = error
            self.scope.reschedule(0.0)


@dataclass
class Connection:
    """What is in transit on one connection, of the client `origin`.

    reading, writing: the calls that wait. held_bytes: of complete messages whose calls run. received_bytes: by the kernel,
    None until it is known; done_bytes: of which belong to messages that are complete. steady_s, steady_bytes: when it was
    last seen to be fast enough, and `received_bytes` then.
    """

    origin: str
    reading: dict[Waiting, None] = field(default_factory=dict)
    writing: dict[Waiting, None] = field(default_factory=dict)
    held_bytes: int = 0
    received_bytes: int | None = None
    done_bytes: int = 0
    steady_s: float = field(default_factory=time.monotonic)
    steady_bytes: int = 0

    def excess_bytes(self) -> int:
        """Bytes received beyond complete messages; a few are framing."""
        return (self.received_bytes or 0) - self.done_bytes

    def arriving_bytes(self, largest_bytes: int) -> int:
        """Bytes of incomplete messages. largest_bytes: of one message."""
        oldest = next(iter([*self.reading]), None)
        if oldest is None or self.received_bytes is None:
            return 0
        return max(0, min(self.excess_bytes() - oldest.base_bytes, len(self.reading) * largest_bytes))

    def total_bytes(self, largest_bytes: int) -> int:
        """Everything in transit on it."""
        leaving_bytes = sum(waiting.size_bytes for waiting in [*self.writing])
        return self.arriving_bytes(largest_bytes) + self.held_bytes + leaving_bytes

    def longest_waiting(self) -> Waiting | None:
        """The call that has waited longest for its client."""
        return min((*self.reading, *self.writing), key=lambda waiting: waiting.since_s, default=None)
