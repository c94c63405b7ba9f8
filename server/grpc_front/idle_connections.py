"""Hangs up on connections without calls before the server has no room for new ones.

gRPC refuses every connection beyond its limit, so clients that only hold connections open would lock all others out.
server/grpc_front/front.py runs `make_room` while it listens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Container

from server.core.connections import OPEN_FILES, Address, Connections
from server.logs import log

CHECK_EVERY_S = 0.5
# Of the connections that may be open: with so many files open there is a look, and so many may be without calls.
FULL_SHARE, ROOM_SHARE = 0.75, 0.5
# A connection on which something came within this time is new or in use.
SILENT_FROM_S = 1.0


async def make_room(port: int, most: int, busy: Callable[[], Container[Address | None]]) -> None:
    """Run until cancelled. port: the server's. most: connections that may be open. busy: those with calls, by address."""
    connections = Connections()
    while os.path.isdir(OPEN_FILES):
        await asyncio.sleep(CHECK_EVERY_S)
        if len(os.listdir(OPEN_FILES)) < FULL_SHARE * most:
            continue
        await asyncio.to_thread(connections.scan)
        silent = sorted(connections.silent(port, busy()), reverse=True)
        too_many = len(silent) - int(ROOM_SHARE * most)
        ended = [address for silent_s, address in silent[: max(too_many, 0)] if silent_s >= SILENT_FROM_S]
        for address in ended:
            connections.hang_up(address)
        if ended:
            log.warning("hung up on idle connections", ended=len(ended), most_connections=most)
