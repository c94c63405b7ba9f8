"""Where the time of one request went: a stopwatch that the admission, the codec threads and the scheduler share.

Every part is wall time, so that the parts can be compared with the whole: two tiles on the device at the same time
count once, and no part exceeds the total. `server/calls.py` makes one for each call; its times become `Timing`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Activity = Literal["queue", "inference", "codec"]


@dataclass(frozen=True)
class Times:
    """Seconds of wall time since the stopwatch was made.

    inference_s: at least one of the request's items was on the device. codec_s: at least one codec thread decoded,
    resized or encoded for it. Both may run at the same time. queue_s: it waited (for admission, a codec thread or the
    device) while nothing was done for it, so queue_s + inference_s <= total_s and queue_s + codec_s <= total_s.
    total_s less all three is the rest: the upload, stitching, and handing over between threads.
    """

    queue_s: float
    inference_s: float
    codec_s: float
    total_s: float


class Stopwatch:
    """Counts what is under way for one request; any thread may begin and end activities.

    clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started_s = self._changed_s = clock()
        self._under_way: dict[Activity, int] = {"queue": 0, "inference": 0, "codec": 0}
        self._spent_s: dict[Activity, float] = {"queue": 0.0, "inference": 0.0, "codec": 0.0}

    def begin(self, activity: Activity) -> None:
        """One more of that activity is under way, until `end`."""
        self._change(activity, 1)

    def end(self, activity: Activity) -> None:
        """One fewer of that activity is under way."""
        self._change(activity, -1)

    @contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """The activity is under way inside the block."""
        self.begin(activity)
        try:
            yield
        finally:
            self.end(activity)

    def times(self) -> Times:
        """The times until now; what is under way counts."""
        with self._lock:
            self._advance()
            spent_s = self._spent_s
            return Times(
                spent_s["queue"],
                spent_s["inference"],
                spent_s["codec"],
                self._changed_s - self._started_s,
            )

    def _change(self, activity: Activity, by: int) -> None:
        with self._lock:
            self._advance()
            self._under_way[activity] += by

    def _advance(self) -> None:
        """Count the time since the last change. Called with the lock held."""
        now_s = self._clock()
        passed_s, self._changed_s = now_s - self._changed_s, now_s
        under_way = self._under_way
        if under_way["inference"]:
            self._spent_s["inference"] += passed_s
        if under_way["codec"]:
            self._spent_s["codec"] += passed_s
        if under_way["queue"] and not under_way["inference"] and not under_way["codec"]:
            self._spent_s["queue"] += passed_s
