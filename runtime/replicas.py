"""Replica: one model on one device, with the engine that serves it now and the other ways to run it when that fails.

    ways:  0 as opened at the start        1 float32 instead of float16        2 the next backend, …
    (runtime/ways.py lists them)

An engine is condemned when it fails on an input that is known to be good (that of the warm-up), or hangs. It is then closed
and opened again; if that fails, or happens too often, the next way takes its place, and stays until the model is loaded
again. A replica without a way left is out, and tries again from the first way at growing intervals.

If an engine fails on an item and still runs a good input, the item is at fault: only this item goes on to the next way,
whose engine is opened for it and kept.

The scheduler asks for `engine(way)` before each batch and calls `condemn`. Opening and closing happen on threads of their
own, because they take from a second to minutes, and may hang where the device does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from runtime.backends.base import Engine
from runtime.open_engines import OpenEngine, Way, close_quietly, describe, seconds_per_px

# Reopening: seconds to wait before the first, the second, … within a minute. After the last, the next way is taken.
REOPEN_AFTER_S = (0.0, 1.0, 4.0)
REOPEN_WITHIN_S = 60.0
# A replica that is out tries again after so many seconds, doubling up to the longest.
FIRST_COMEBACK_S, LONGEST_COMEBACK_S = 10.0, 300.0
# A device that hangs may not let its engine be closed.
MAX_CLOSING_S = 5.0


class Replica:
    """One model on one device. Thread-safe.

    first: the engine that is open already, by way 0. slots: batches at once. ways: at least one. changed: called, from any
    thread, when the answer of `engine` may have changed. tell: called with each Event. alone: whether the model has no
    other replica that serves. pause: waits for seconds, or until the replica is closed; returns whether it is.
    """

    def __init__(
        self,
        device: str,
        first: Engine,
        ways: Sequence[Way],
        *,
        changed: Callable[[], None],
        tell: Callable[[str, str, str], None],
        alone: Callable[[Replica], bool],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        self.device, self.slots, self.ways = device, first.slots, ways
        self._changed, self._tell, self._alone, self._clock = changed, tell, alone, clock
        self._closed = threading.Event()
        self._pause = pause or self._closed.wait
        self._lock = threading.Lock()
        self._at = 0  # the way that items run on that have not failed
        self._engines: dict[int, OpenEngine] = {0: OpenEngine(first, device, self.condemn)}
        self._opening: set[int] = set()
        self._useless: dict[int, str] = {}  # ways that failed, and why
        self._reopened_s: deque[float] = deque()
        self._stuck: list[threading.Thread] = []  # openings that were given up and may still hang
        self.state: Literal["serving", "healing", "out"] = "serving"
        self.reason = ""

    def engine(self, way: int) -> OpenEngine | None:
        """The open engine of this way, or of the next that works. None if there is none now; one may be being opened."""
        with self._lock:
            if self.state != "serving" or (wanted := self._usable(way)) is None:
                return None
            found = self._engines.get(wanted)
            if found is None and wanted not in self._opening and not self._closed.is_set():
                self._opening.add(wanted)
                self._start(self._open_spare, wanted)
            return found

    def may_run(self, way: int) -> bool:
        """Whether this way, or a later one, may still work."""
        with self._lock:
            if self.state == "healing":
                return way < len(self.ways)
            return self.state == "serving" and self._usable(way) is not None

    def tried(self) -> str:
        """The ways that failed, and why."""
        with self._lock:
            return "; ".join(f"{self.ways[way].label}: {why}" for way, why in self._useless.items())

    def now(self) -> OpenEngine | None:
        """The engine that items run on that have not failed; None while there is none."""
        with self._lock:
            return self._engines.get(self._at) if self.state == "serving" else None

    def condemn(self, engine: OpenEngine, reason: str) -> None:
        """Replace an engine that failed or hangs. Does nothing if it was replaced already."""
        with self._lock:
            if self._engines.get(engine.way) is not engine or self._closed.is_set():
                return
            del self._engines[engine.way]
            spare = engine.way != self._at
            if spare:
                self._useless[engine.way] = reason
            else:
                self.state, self.reason = "healing", reason
        self._tell("engine failed", f"{engine}: {reason}", self.device)
        closing = self._start(close_quietly, engine.engine)
        if not spare:
            self._start(self._heal, engine.way, closing)
        self._changed()

    def close(self) -> None:
        """Close all engines and end the threads, except those that hang."""
        self._closed.set()
        with self._lock:
            engines, self.state = list(self._engines.values()), "out"
            self._engines.clear()
        for open_engine in engines:
            open_engine.engine.close()

    # On threads of their own.

    def _heal(self, way: int, closing: threading.Thread) -> None:
        """Open an engine again, or one of the next ways; if none works, try again later. closing: closes the old engine."""
        closing.join(MAX_CLOSING_S)  # its memory may be needed
        comeback_s = FIRST_COMEBACK_S
        wait_s = self._reopen_after_s()
        way = way + 1 if wait_s is None else way
        if self._pause(wait_s or 0.0):
            return
        while not self._closed.is_set():
            with self._lock:
                self._at = way
            healed = any(self._try(each) for each in range(way, len(self.ways)))
            if healed or self._closed.is_set():
                return
            with self._lock:
                self.state = "out"
            self._tell("device out", self.reason, self.device)
            self._changed()
            while True:
                if self._pause(comeback_s):
                    return
                comeback_s = min(2 * comeback_s, LONGEST_COMEBACK_S)
                self._stuck = [thread for thread in self._stuck if thread.is_alive()]
                if not self._stuck:
                    break  # else the device still hangs, and another try would only take more memory
            way = 0
            with self._lock:
                self._useless.clear()

    def _try(self, way: int) -> bool:
        """Serve by this way from now on. Returns whether it works."""
        if self.ways[way].elsewhere and not self._alone(self):
            return False
        with self._lock:
            spare = self._engines.get(way)
        engine = spare if spare is not None and spare.problem() is None else self._open(way)
        if engine is None:
            return False
        with self._lock:
            if self._closed.is_set():
                self._start(close_quietly, engine.engine)
                return False
            self._engines[way] = engine
            self._at, self.state, self.reason = way, "serving", ""
            self._useless.pop(way, None)
        self._tell("engine replaced", f"{engine.label}: {engine}", self.device)
        self._changed()
        return True

    def _open_spare(self, way: int) -> None:
        """Open the engine of a later way, for items that fail on the present one."""
        engine = self._open(way)
        with self._lock:
            self._opening.discard(way)
            if engine is not None and (self._closed.is_set() or way in self._engines):
                self._start(close_quietly, engine.engine)
            elif engine is not None:
                self._engines[way] = engine
        if engine is not None:
            self._tell("engine opened", f"{engine.label}: {engine}, for items that failed", self.device)
        self._changed()

    def _open(self, way: int) -> OpenEngine | None:
        """Open and warm up an engine. None if that fails or takes too long; the reason is kept."""
        chosen, opened, late = self.ways[way], deque[OpenEngine](), threading.Event()
        reason = f"did not open within {chosen.limit_s:g} s"

        def open_warm() -> None:
            nonlocal reason
            engine: Engine | None = None
            try:
                engine = chosen.open()
                engine.warm_up()
                candidate = OpenEngine(
                    engine, self.device, self.condemn, way=way, label=chosen.label, step=chosen.step
                )
                candidate.seconds_per_px = seconds_per_px(engine, self._clock)
                opened.append(candidate)
            except Exception as error:
                reason = describe(error)
            if engine is not None and (not opened or late.is_set()):
                close_quietly(engine)

        thread = self._start(open_warm)
        thread.join(chosen.limit_s)
        late.set()
        if thread.is_alive():
            self._stuck.append(thread)
        if opened:
            return opened[0]
        with self._lock:
            self._useless[way] = self.reason = reason
        self._tell("engine failed", f"{chosen.label}: {reason}", self.device)
        return None

    def _usable(self, way: int) -> int | None:
        """The first way from `way` on that has not failed. Called with the lock held."""
        candidates = range(max(way, self._at), len(self.ways))
        return next((each for each in candidates if each not in self._useless), None)

    def _reopen_after_s(self) -> float | None:
        """Seconds to wait before the engine is opened again; None if that has happened too often lately."""
        now_s = self._clock()
        while self._reopened_s and self._reopened_s[0] <= now_s - REOPEN_WITHIN_S:
            self._reopened_s.popleft()
        if len(self._reopened_s) >= len(REOPEN_AFTER_S):
            return None
        wait_s = REOPEN_AFTER_S[len(self._reopened_s)]
        self._reopened_s.append(now_s)
        return wait_s

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        # Daemons, because a device that hangs may never let them end.
        thread = threading.Thread(target=work, args=arguments, name=f"heal-{self.device}", daemon=True)
        thread.start()
        return thread
