"""A clock for tests, in place of time.monotonic."""

from __future__ import annotations


class Clock:
    """A clock that stands still until the test turns it. now_s: seconds; not 0, which code may take for "never"."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s
