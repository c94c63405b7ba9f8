"""A clock for tests, in place of time.monotonic."""

from __future__ import annotations


class Clock:
    """A time that passes when the test says so, in seconds."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s
