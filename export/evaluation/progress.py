"""A bar for the loops that take minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def followed(items: Sequence[T], doing: str) -> Iterator[T]:
    """`items`, with a bar on standard error while they are worked through; none where that is no terminal."""
    console = Console(stderr=True)
    yield from track(items, doing, console=console, transient=True, disable=not console.is_terminal)
