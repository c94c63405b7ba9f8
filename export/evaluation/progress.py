"""A progress bar for the loops of an evaluation that take minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def with_progress(items: Sequence[T], description: str) -> Iterator[T]:
    """`items`, with a bar on standard error while a loop works through them; no bar where that is not a terminal."""
    console = Console(stderr=True)
    yield from track(items, description, console=console, transient=True, disable=not console.is_terminal)
