"""What the user sees and can do while a run goes on: a bar on a terminal, plain lines elsewhere, Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Shows how much of a run is done. A context manager, so that the bar is closed whatever happens.

    steps: of the whole run; done: the share of the run, in [0, 1], that an earlier one did. shown: False for a process
    that leaves talking to another.
    """

    def __init__(self, steps: int, done: float, *, shown: bool = True) -> None:
        self.steps, self.before = steps, done
        self.console = Console(quiet=not shown)
        columns = (
            TextColumn("step {task.fields[step]}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("steps", total=1.0, step="")
        self.bar.update(self.task, completed=done)
        self.started = time.monotonic()
        self.taken = 0

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, step: int, done: float) -> None:
        """One more step was taken."""
        self.taken += 1
        self.bar.update(self.task, completed=done, step=f"{step}/{self.steps}")

    def tell(self, step: int, done: float, figures: Mapping[str, float]) -> None:
        """A line with `figures`, the speed and the time left, above the bar where there is one."""
        told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        seconds = time.monotonic() - self.started
        left = timedelta(seconds=round(seconds * max(1 - done, 0) / max(done - self.before, 1e-9)))
        rate = self.taken / max(seconds, 1e-9)
        line = f"step {step}/{self.steps}  {told}  {rate:.2f} steps/s  {left} left"
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C (or SIGTERM) is only noted, so that a step ends and is saved; the second one kills."""
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
