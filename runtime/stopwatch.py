"""A stopwatch for one request: how long it queued, ran on the device and spent in codecs.

server/calls.py makes one for each call. The service, the codec threads and the scheduler begin and end activities on it,
and `times` becomes the answer's `Timing`. All times are wall time: two tiles on the device at the same moment count
once, so no part exceeds the total.
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

    inference_s: at least one of the request's items was on the device.
    codec_s: at least one codec thread decoded, resized or encoded for it. May overlap inference_s.
    queue_s: the request waited (for admission, a codec thread or the device) and nothing ran for it. Overlaps neither,
        so queue_s + inference_s <= total_s and queue_s + codec_s <= total_s.
    total_s: everything, including the upload, stitching and switches between threads.
    """

    queue_s: float
    inference_s: float
    codec_s: float
    total_s: float


class Stopwatch:
    """Counts the running activities of one request and their wall time. Thread-safe. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started_s = self._changed_s = clock()
        self._under_way: dict[Activity, int] = {"queue": 0, "inference": 0, "codec": 0}
        self._spent_s: dict[Activity, float] = {"queue": 0.0, "inference": 0.0, "codec": 0.0}

    def begin(self, activity: Activity) -> None:
        """Start an activity. Several of the same kind may run at once; each needs its own `end`."""
        self._change(activity, 1)

    def end(self, activity: Activity) -> None:
        """End an activity started with `begin`."""
        self._change(activity, -1)

    @contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """Context manager: `begin` on entering, `end` on leaving."""
        self.begin(activity)
        try:
            yield
        finally:
            self.end(activity)

    def times(self) -> Times:
        """The times so far, running activities included."""
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
