"""What sources and sinks of moving pictures have in common: Frame, Look, Damage, Source and Sink.

clip_source.py and animation.py implement them; server/client/moving_pictures.py connects one Source with one Sink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO, Protocol


@dataclass(frozen=True)
class Frame:
    """One frame of a source.

    number: from 1. pts, duration: when it is shown and for how long, in units of the source's time base.
    time_s: when it is shown, in seconds, for messages. file: encodes it losslessly; called on another thread.
    """

    number: int
    pts: int
    duration: int
    time_s: float
    file: Callable[[], bytes]


@dataclass(frozen=True)
class Damage:
    """Where a source could not be read. number: of the first frame that is missing. time_s: when it would be shown."""

    number: int
    time_s: float
    reason: str


@dataclass(frozen=True)
class Look:
    """How the numbers of a frame are colours. FFmpeg's numbers of H.273's codes; 2 (0 for the range): not stated.

    matrix: between RGB and YCbCr. range: 1 for limited, 2 for full. primaries, transfer: kept, never converted.
    deep: whether a channel has more than 8 bits. aspect: width of a pixel through its height.
    """

    matrix: int
    range: int
    primaries: int = 2
    transfer: int = 2
    deep: bool = False
    aspect: Fraction = Fraction(1)


@dataclass
class Facts:
    """What a sink has to know about a source before its first frame.

    time_base: the unit of `pts`, in seconds. rate: frames a second on average. total: frames, as far as the file says;
    None if it does not. loop: how often an animation is shown, 0 for ever. notes: for the user, what is not kept.
    """

    time_base: Fraction
    rate: Fraction
    total: int | None
    look: Look
    loop: int = 1
    notes: list[str] = field(default_factory=list)


class Source(Protocol):
    """A clip or an animation that is read. damage: None as long as everything could be read."""

    facts: Facts
    damage: Damage | None

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames in the order in which they are shown, without the first `skip`."""

    def close(self) -> None:
        """Close the file."""


class Sink(Protocol):
    """Collects the answers to the frames of one source. done: how many an earlier run left."""

    done: int

    def prepare(self, answer: bytes) -> Any:
        """What `add` takes for an answer's file. Called on other threads, several at once."""

    def add(self, frame: Frame, prepared: Any) -> None:
        """Keep the answer to the next frame."""

    def close(self) -> None:
        """Keep what was added, for this run or a later one. Further frames may follow."""

    def write(self, file: BinaryIO, last: Frame) -> tuple[int, int]:
        """Put the answer together in an open file. last: the frame that is shown last. Returns width and height in px."""
