"""What the user sees and can do while a run goes on: a progress bar or plain lines, and Ctrl-C. The loop uses both."""

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

    steps: of the whole run. done: the share of the run, in [0, 1], done before. shown: False prints nothing, for the
    processes beside the first.
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
        """Count one more step."""
        self.steps_taken += 1
        self.bar.update(self.task, completed=done, step=f"{step}/{self.steps}")

    def print_figures(self, step: int, done: float, figures: Mapping[str, float]) -> None:
        """A line with `figures`, the speed and the time left, above the bar where there is one."""
        columns = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        elapsed_s = time.monotonic() - self.started_s
        left = timedelta(seconds=round(elapsed_s * max(1 - done, 0) / max(done - self.done_before, 1e-9)))
        rate = self.steps_taken / max(elapsed_s, 1e-9)
        line = f"step {step}/{self.steps}  {columns}  {rate:.2f} steps/s  {left} left"
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C (or SIGTERM) only makes the yielded function return True; the second one ends the process.

    So the loop can finish its step and save it.
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
