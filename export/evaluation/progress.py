"""A progress bar for loops of the evaluation that take minutes; classifier.py, classifiers.py, restoration.py and sampling.py
call it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def with_progress(items: Sequence[T], description: str) -> Iterator[T]:
    """Yield `items`, and show on standard error how many have been taken, if it is a terminal."""
    console = Console(stderr=True)
    yield from track(items, description, console=console, transient=True, disable=not console.is_terminal)
