"""A client that is to be killed: `python -m tests.chaos.victim ADDRESS CALL REQUEST-ID` makes one long call and says so."""

from __future__ import annotations

import sys

from tests.chaos import calls

if __name__ == "__main__":
    address, name, request_id = sys.argv[1:]
    with calls.channel(address) as connection:
        running = calls.start(connection, name, "long", request_id=request_id)
        print("called", flush=True)
        print(running.outcome())
