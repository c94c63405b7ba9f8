"""What the user sees and can do while a run goes on: a bar on a terminal, plain lines elsewhere, Ctrl-C."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts steps from `first` to `steps`. A context manager, so that the bar is closed whatever happens."""

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps = first, steps
        self.console = Console()
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
        )
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("steps", total=steps, completed=first, told="")
        self.started = time.monotonic()

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self) -> None:
        self.bar.advance(self.task)

    def tell(self, step: int, figures: Mapping[str, float]) -> None:
        told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self.console.is_terminal:
            self.bar.update(self.task, told=told)
            return
        rate = (step - self.first) / max(time.monotonic() - self.started, 1e-9)
        left = timedelta(seconds=round((self.steps - step) / rate))
        print(f"step {step}/{self.steps}  {told}  {rate:.2f} steps/s  {left} left", flush=True)


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
