"""Prints the progress of a build: a spinner on a terminal, plain lines elsewhere. pipeline.py and its steps use Steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


class Steps:
    """Numbers, announces and times the steps of a build. names: the steps in order. seconds: step → how long it took."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.seconds: dict[str, float] = {}
        self._console = Console(highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[None]:
        """A context manager around a step. doing: what it does, shown while it runs."""
        head = f"[{self.names.index(name) + 1}/{len(self.names)}] {name}: {doing}"
        started = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(escape(head)):
                yield
        else:
            self.say(head)
            yield
        self.seconds[name] = round(time.monotonic() - started, 2)
        self.say(
            f"{head} ({self.seconds[name]:.1f} s)"
            if self._console.is_terminal
            else f"      {name} took {self.seconds[name]:.1f} s"
        )

    def note(self, text: str) -> None:
        """Print a line of detail inside a step."""
        self.say(f"      {text}")

    def say(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(text, markup=False)
        else:
            print(text, flush=True)
