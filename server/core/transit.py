"""Bounds the memory of messages in transit: those that arrive, those whose calls hold them, and answers that leave.

A slow client never makes another wait: beyond `limits.max_transit_bytes`, the call that has waited longest for
its client is ended, of the connection that holds most, of the client that holds most. A thumbnail is in transit for a
moment and waits for nobody.

gRPC takes in a message as fast as it is sent, as soon as somebody waits for it, and says nothing before its last byte. So
while anybody waits, the kernel is asked several times a second how much has come on each connection
(server/core/connections.py). A connection on which too little comes is told by the same figures.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager

from runtime.errors import DeadlineExceeded, GanforgeError, Overloaded
from server.core.calls import Call
from server.core.connections import Connections, machine
from server.core.waiting import Connection, Waiting
from server.limits import Limits
from server.machine import allocator

CHECK_EVERY_S = 0.1
RETRY_AFTER_S = 2.0
# A call that got something from its client within this time is not ended to make room for another call.
IDLE_FROM_S = 0.25
# gRPC takes in messages in small pieces, of which the allocator keeps hundreds of MiB after they are freed. They are returned
# to the system once messages took more than the first part of `max_transit_bytes`, and again take less than the second.
TRIM_AFTER, TRIM_BELOW = 1 / 4, 1 / 16
# A client that sends shorter messages, such as empty pieces, counts as idle.
LEAST_HEARD_BYTES = 64


class Transit:
    """All messages in transit of one server. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kernel = Connections()
        self._connections: dict[str, Connection] = {}
        self._checks: asyncio.Task[None] | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes in transit, by the last check. May be read from any thread."""
        # Copies, here and in Connection: a scrape reads while calls come and go.
        connections = [*self._connections.values()]
        return sum(each.total_bytes(self._limits.max_message_bytes) for each in connections)

    async def receive(self, message: Awaitable[bytes | None], call: Call) -> bytes | None:
        """Wait for a message of `call`; None if it sends no more.

        Raises DeadlineExceeded if too little arrives, and Overloaded if the memory is needed for others.
        """
        connection, limits = self._connection(call), self._limits
        connection.received_bytes = self._kernel.received_bytes(call.peer)
        base_bytes = 0 if connection.received_bytes is None else connection.excess_bytes()
        longest_s = limits.idle_s + limits.max_message_bytes / limits.min_rate_bytes_s
        sentence = f"the request did not arrive within {longest_s:g} s; the call was ended"
        waiting = Waiting(call, asyncio.timeout(longest_s), base_bytes=base_bytes)
        async with self._wait(waiting, connection.reading, sentence):
            data = await message
            connection.done_bytes += len(data or b"")
            if data is not None and len(data) >= LEAST_HEARD_BYTES:
                call.heard_s = time.monotonic()
        return data

    async def send(
        self, leaving: Awaitable[None], call: Call, *, leaving_bytes: int, held_bytes: int = 0
    ) -> None:
        """Wait until a piece of an answer has left. Errors: as for `receive`.

        leaving_bytes: of memory that is held until then. held_bytes: of memory that is held for further pieces.
        """
        connection, limits = self._connection(call), self._limits
        longest_s = limits.idle_s + leaving_bytes / limits.min_rate_bytes_s
        sentence = f"nothing was read for {longest_s:g} s, or too slowly; the call was ended"
        waiting = Waiting(call, asyncio.timeout(longest_s), True, leaving_bytes + held_bytes)
        async with self._wait(waiting, connection.writing, sentence):
            self._make_room()
            await leaving
            call.heard_s = time.monotonic()

    @contextmanager
    def held(self, size_bytes: int, call: Call) -> Iterator[None]:
        """Context manager: counts a complete message. Raises Overloaded if there is no room for it."""
        connection = self._connection(call)
        connection.held_bytes += size_bytes
        try:
            self._make_room()
            if self.held_bytes > self._limits.max_transit_bytes:
                raise self._overloaded()
            yield
        finally:
            connection.held_bytes -= size_bytes

    def close(self) -> None:
        """Stop counting. No call may be running."""
        if self._checks is not None:
            self._checks.cancel()

    def end_idle(self, address: str | None = None) -> bool:
        """Make room for another call: end the waiting one that has heard nothing from its client for longest.

        address: only one from this machine. Returns whether there was one.
        """
        idle_since_s = time.monotonic() - IDLE_FROM_S
        idle = [
            waiting
            for peer, connection in self._connections.items()
            if address in (None, machine(peer))
            for waiting in (*connection.reading, *connection.writing)
            if waiting.idle_since_s() < idle_since_s
        ]
        if not idle:
            return False
        longest = min(idle, key=Waiting.idle_since_s)
        self._end(
            longest,
            Overloaded(
                "this call waited for its client while others needed its place (--max-calls); send without pauses",
                retry_after_s=RETRY_AFTER_S,
                reason="idle",
            ),
        )
        return True

    def end(self, call: Call, error: GanforgeError) -> bool:
        """End a call if it waits for its client. Returns whether it did."""
        connection = self._connections.get(call.peer)
        waits = (*connection.reading, *connection.writing) if connection else ()
        waiting = next((each for each in waits if each.call is call), None)
        if waiting is not None:
            self._end(waiting, error)
        return waiting is not None

    @asynccontextmanager
    async def _wait(self, waiting: Waiting, group: dict[Waiting, None], sentence: str) -> AsyncIterator[None]:
        """Context manager around a wait, which is in `group` meanwhile.

        Raises what the call was ended with, or DeadlineExceeded(sentence) after its time.
        """
        try:
            async with waiting.scope:
                group[waiting] = None
                if self._checks is None or self._checks.done():
                    self._checks = asyncio.create_task(self._check_regularly())
                yield
        except TimeoutError:
            if not waiting.scope.expired():
                raise
            raise waiting.ended or DeadlineExceeded(sentence) from None
        finally:
            group.pop(waiting, None)

    def _connection(self, call: Call) -> Connection:
        if call.peer not in self._connections:
            self._connections[call.peer] = Connection(call.origin)
        return self._connections[call.peer]

    async def _check_regularly(self) -> None:
        """Count what has arrived, as long as anything is in transit, and give back what many bytes have left behind."""
        most_bytes, limit_bytes = 0, self._limits.max_transit_bytes
        while self._connections:
            await asyncio.sleep(CHECK_EVERY_S)
            if any(each.received_bytes is None for each in self._connections.values()):
                self._kernel.scan()
            now_s = time.monotonic()
            for peer, connection in list(self._connections.items()):
                connection.received_bytes = self._kernel.received_bytes(peer)
                self._end_slow(connection, now_s)
                if not (connection.reading or connection.writing or connection.held_bytes):
                    del self._connections[peer]
            self._make_room()
            most_bytes = max(most_bytes, self.held_bytes)
            if most_bytes > TRIM_AFTER * limit_bytes and self.held_bytes < TRIM_BELOW * limit_bytes:
                most_bytes = 0
                await asyncio.to_thread(allocator.trim)

    def _end_slow(self, connection: Connection, now_s: float) -> None:
        """End the calls of a connection on which too little has arrived for `idle_s`."""
        limits, received_bytes = self._limits, connection.received_bytes
        if received_bytes is None or now_s - connection.steady_s < limits.idle_s:
            return
        rate = (received_bytes - connection.steady_bytes) / (now_s - connection.steady_s)
        connection.steady_s, connection.steady_bytes = now_s, received_bytes
        if rate >= limits.min_rate_bytes_s:
            return
        for waiting in [each for each in connection.reading if now_s - each.since_s >= limits.idle_s]:
            self._end(
                waiting,
                DeadlineExceeded(
                    f"{rate:.0f} bytes a second arrived, expected {limits.min_rate_bytes_s} (--min-rate-bytes-s); "
                    f"the call was ended after {now_s - waiting.since_s:.0f} s"
                ),
            )

    def _make_room(self) -> None:
        """End calls that wait for their clients until what is in transit fits."""
        largest_bytes = self._limits.max_message_bytes
        while True:
            by_origin: Counter[str] = Counter()
            for connection in self._connections.values():
                by_origin[connection.origin] += connection.total_bytes(largest_bytes)
            if by_origin.total() <= self._limits.max_transit_bytes:
                return
            waiting = [
                (by_origin[each.origin], waiting_bytes, longest)
                for each in self._connections.values()
                if (longest := each.longest_waiting())
                and (waiting_bytes := each.total_bytes(largest_bytes) - each.held_bytes) > 0
            ]
            if not waiting:
                return
            self._end(max(waiting, key=lambda each: each[:2])[2], self._overloaded())

    def _end(self, waiting: Waiting, error: GanforgeError) -> None:
        """End a call, and count it no more."""
        connection = self._connections[waiting.call.peer]
        if waiting in connection.reading:  # its share of what arrives, as far as that can be known
            share_bytes = connection.arriving_bytes(self._limits.max_message_bytes) // len(connection.reading)
            connection.done_bytes += share_bytes
            waiting.call.facts["received_bytes"] = share_bytes
        connection.reading.pop(waiting, None)
        connection.writing.pop(waiting, None)
        waiting.end(error)

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"the messages in transit take more than {self._limits.max_transit_bytes} bytes (--max-transit-bytes); "
            "try again later, or send and read faster",
            retry_after_s=RETRY_AFTER_S,
            reason="transit",
        )
