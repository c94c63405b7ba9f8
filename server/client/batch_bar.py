"""BatchBar: shows the progress of a batch of pictures: a bar on a terminal, else one line per picture.

`send_all` in sending.py uses it, and moving_pictures.py for the frames of a clip.
The bar is on stderr, so that stdout may be a file or a pipe.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from server.client.image_calls import OnProgress

# The time left is estimated from this period. A long one, because pictures differ in size.
ESTIMATE_FROM_S = 300.0
# Without a terminal, a clip gets a line so often.
LINE_EVERY_S = 10.0


class BatchBar:
    """The bar "4 of 100, ETA 0:12:34". A context manager. total: all pictures. done: those finished by an earlier run.

    `picture` may be called on any thread, `advance` only on the one that made the bar.
    """

    def __init__(self, *, total: int, done: int = 0) -> None:
        self._total = total
        self._done = done
        self._parts: dict[int, float] = {}  # thread → the fraction of its current picture that is done
        self._lock = threading.Lock()
        self._on_terminal = sys.stderr.isatty()
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._on_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
            speed_estimate_period=ESTIMATE_FROM_S,
        )
        self._task = self._progress.add_task("", total=total, completed=done, count=self._count())

    @contextmanager
    def picture(self) -> Iterator[OnProgress | None]:
        """Context manager around the work on one picture.

        Yields a function to call with (tiles done, tiles in total), or None if there is no bar.
        """
        if not self._on_terminal:
            yield None
            return
        key = threading.get_ident()  # a thread works on one picture at a time

        def on_progress(done: int, total: int) -> None:
            with self._lock:
                self._parts[key] = done / max(total, 1)
            self._draw()

        try:
            yield on_progress
        finally:
            with self._lock:
                self._parts.pop(key, None)

    @contextmanager
    def frames(self, name: str, total: int | None, done: int) -> Iterator[Callable[[], None]]:
        """Context manager around the work on the frames of one clip, with a bar of its own.

        total: all frames, as far as is known. done: those finished by an earlier run. Yields a function to call for each
        further one; without a terminal, it prints a line now and then.
        """
        of, now, said_s = f" of {total}" if total else "", done, time.monotonic()
        start_s = said_s
        task = self._progress.add_task("", total=total, completed=done, count=f"{name}: {done}{of} frames")
        self._progress.update(self._task, visible=self._total > 1)

        def advance() -> None:
            nonlocal now, said_s
            now += 1
            at_s = time.monotonic()
            rate = (now - done) / max(at_s - start_s, 1e-3)
            count = f"{name}: {now}{of} frames, {rate:.3g} a second"
            self._progress.update(task, completed=now, count=count)
            if not self._on_terminal and at_s - said_s >= LINE_EVERY_S:
                said_s = at_s
                left = f", ETA {timedelta(seconds=round(max(0, total - now) / rate))}" if total else ""
                click.echo(f"{count}{left}", err=True)

        try:
            yield advance
        finally:
            self._progress.remove_task(task)
            self._progress.update(self._task, visible=self._total > 1)

    def note(self, line: str) -> None:
        """Print a line to stderr, above the bar."""
        self._print(line, err=True)

    def advance(self, line: str, *, err: bool = False) -> None:
        """Count a finished or failed picture and print `line` about it. err: print to stderr instead of stdout."""
        self._done += 1
        self._draw()
        if self._total > 1:
            line = f"{self._done} of {self._total}: {line}"
        self._print(line, err=err)

    def _print(self, line: str, *, err: bool) -> None:
        if self._on_terminal and (err or sys.stdout.isatty()):
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)  # above the bar
        else:
            click.echo(line, err=err)

    def _draw(self) -> None:
        with self._lock:
            completed = self._done + sum(self._parts.values())
        self._progress.update(self._task, completed=completed, count=self._count())

    def _count(self) -> str:
        return f"{self._done} of {self._total}"

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
