"""Shows a run's progress (ProgressDisplay) and lets Ctrl-C end it after the current step (`interruptible`). loop.py uses both."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressDisplay:
    """Shows how much of a run is done: a bar on a terminal, and lines of figures. A context manager, which closes the bar.

    steps: of the whole run. done: the share of the run, in [0, 1], that was done before. shown: whether to print at all;
    only the first process does.
    """

    def __init__(self, steps: int, done: float, *, shown: bool = True) -> None:
        self.steps, self.done_before = steps, done
        self.console = Console(quiet=not shown)
        columns = (
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("steps", total=1.0, step="")
        self.bar.update(self.task, completed=done)
        self.started_s = time.monotonic()
        self.steps_taken = 0

    def __enter__(self) -> ProgressDisplay:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, step: int, done: float) -> None:
        """Show that `step` is finished. done: the share of the run, in [0, 1]."""
        self.steps_taken += 1
        self.bar.update(self.task, completed=done, step=f"{step}/{self.steps}")

    def print_figures(self, step: int, done: float, figures: Mapping[str, float]) -> None:
        """Print a line with `figures`, the speed and the time left, above the bar if there is one."""
        columns = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        elapsed_s = time.monotonic() - self.started_s
        left = timedelta(seconds=round(elapsed_s * max(1 - done, 0) / max(done - self.done_before, 1e-9)))
        rate = self.steps_taken / max(elapsed_s, 1e-9)
        line = f"step {step}/{self.steps}  {columns}  {rate:.2f} steps/s  {left} left"
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """A context manager that gives a function: it returns True after the first Ctrl-C (or SIGTERM).

    So the loop can finish its step and save it. A second Ctrl-C ends the process at once.
    """
    caught: list[int] = []
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in previous:
        signal.signal(number, note)
    try:
        yield lambda: bool(caught)
    finally:
        restore()
