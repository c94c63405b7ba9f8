"""Estimates: seconds per pixel, learned from what ran, and from them the seconds that a request will take.

runtime/scheduling/stats.py learns the speed of each engine from its batches. server/core/images.py and samples.py let
`Estimates.learn` the speed of the codecs from each answered request. server/core/shared.py asks `Estimates.cost` before it
admits one.

How fast an estimate follows: each thing that ran counts nine tenths of what the one after it counts, so after ten to twenty
of them the past is forgotten. A single one counts at most as four times the current estimate, so that one stall of a minute
moves it by a third at most. When nothing runs, as when requests are refused because of a high estimate, it goes back to the
long-term average, half of the way a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from runtime.cost import Cost
from runtime.pictures.formats import Encoding

# Weight of what ran before, each time something runs: in the current estimate and in the long-term average.
DECAY, SLOW_DECAY = 0.9, 0.99
# What ran counts at most as so many times the current estimate.
LARGEST_FACTOR = 4.0
HALF_LIFE_S = 60.0
# Seconds per pixel of input and output together, on one slow core, until something was learned; by `Coding.kind`.
FIRST_GUESSES_S_PER_PX: Mapping[str, float] = {
    "png 0": 30e-9,
    "png 9": 700e-9,
    "jpeg": 30e-9,
    "webp": 120e-9,
    "webp lossless": 600e-9,
    "tiff 0": 30e-9,
    "tiff 9": 300e-9,
}
FIRST_GUESS_S_PER_PX = 80e-9


class Rate:
    """Seconds per pixel of one kind of work. Sums, not a mean of rates: a tiny thing says little about large ones."""

    def __init__(self, guess: float | None = None) -> None:
        self._guess = guess
        # Decayed sums of seconds and pixels: recent, and long-term.
        self._recent, self._long = (0.0, 0.0), (0.0, 0.0)
        self._learned_at_s = 0.0

    def learn(self, seconds: float, pixels: int, now_s: float) -> None:
        """Take something into account that ran. now_s: on any clock, the same as for `value`."""
        expected = self.value(now_s)
        if _rate(self._recent) is not None and expected is not None:
            # Start from what `value` has gone back to while nothing ran.
            self._recent = (expected * self._recent[1], self._recent[1])
        self._recent = _learned(self._recent, DECAY, seconds, pixels)
        self._long = _learned(self._long, SLOW_DECAY, seconds, pixels)
        self._learned_at_s = now_s

    def value(self, now_s: float) -> float | None:
        """The estimate; None if nothing is known."""
        recent, long = _rate(self._recent), _rate(self._long)
        if recent is None or long is None:
            return self._guess
        return long + (recent - long) * 0.5 ** ((now_s - self._learned_at_s) / HALF_LIFE_S)


def _learned(sums: tuple[float, float], decay: float, seconds: float, pixels: int) -> tuple[float, float]:
    rate = _rate(sums)
    if rate is not None:
        seconds = min(seconds, LARGEST_FACTOR * rate * pixels)
    return decay * sums[0] + seconds, decay * sums[1] + pixels


def _rate(sums: tuple[float, float]) -> float | None:
    seconds, pixels = sums
    return seconds / pixels if pixels else None


class Speed:
    """Seconds per pixel of one engine or codec, by the size of what runs: small things cost more for each pixel.

    guess: until something ran, and at most for what is larger than all that ran; None for none.
    """

    def __init__(self, guess: float | None = None) -> None:
        self._guess = guess
        self._overall = Rate(guess)
        self._by_size: dict[int, Rate] = {}

    def learn(self, size_px: int, seconds: float, pixels: int, now_s: float) -> None:
        """Take something into account that ran. size_px: of one item. pixels: of all items together, above 0."""
        self._overall.learn(seconds, pixels, now_s)
        self._by_size.setdefault(_size(size_px), Rate()).learn(seconds, pixels, now_s)

    def value(self, now_s: float, size_px: int | None = None) -> float | None:
        """Seconds per pixel of items of this size, or of the next known one; None if nothing is known.

        size_px: None for all sizes together.
        """
        if size_px is None or not self._by_size:
            return self._overall.value(now_s)
        size = _size(size_px)
        nearest = min(self._by_size, key=lambda known: abs(known - size))
        rate = self._by_size[nearest].value(now_s)
        # Small items cost more for each pixel than large ones: no poster is refused because of a few thumbnails.
        return min(rate, self._guess) if rate and self._guess and nearest < size else rate


def _size(size_px: int) -> int:
    """The same number for sizes within a factor of two."""
    return size_px.bit_length()


@dataclass(frozen=True)
class OnDevice:
    """What a request asks of the device. items: to compute. seconds_per_px: of items of this size. slots: that run at once."""

    items: int
    seconds_per_px: float
    slots: int


@dataclass(frozen=True)
class Coding:
    """What a request asks of the codecs. encoding: of the answer. pixels: decoded and encoded. files: to encode.

    overlaps: whether they work while the device computes.
    """

    encoding: Encoding
    pixels: int
    files: int = 1
    overlaps: bool = False

    @property
    def size_px(self) -> int:
        """Pixels of one file."""
        return self.pixels // self.files

    @property
    def kind(self) -> str:
        """What the speed depends on beside the size: the format with its effort."""
        encoding = self.encoding
        if encoding.lossless:
            return f"{encoding.format} lossless"
        if encoding.compression is not None and encoding.format in ("png", "tiff"):
            return f"{encoding.format} {encoding.compression}"
        return encoding.format


class Estimates:
    """What requests will take. Not thread-safe. codec_threads: that decode and encode at once. clock: in seconds."""

    def __init__(self, codec_threads: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._codec_threads, self._clock = codec_threads, clock
        self._codecs: dict[str, Speed] = {}

    def cost(self, cost: Cost, device: OnDevice, coding: Coding) -> Cost:
        """The cost of a request with its seconds."""
        one_slot_s = device.seconds_per_px * cost.pixels
        on_device_s = one_slot_s / min(device.slots, max(1, device.items))
        one_thread_s = self._codec_s_per_px(coding) * coding.pixels
        in_codecs_s = one_thread_s / min(self._codec_threads, coding.files)
        alone_s = max(on_device_s, in_codecs_s) if coding.overlaps else on_device_s + in_codecs_s
        device_s, codec_s = one_slot_s / device.slots, one_thread_s / self._codec_threads
        return replace(cost, device_s=device_s, codec_s=codec_s, latency_s=alone_s - max(device_s, codec_s))

    def learn(self, coding: Coding, codec_s: float) -> None:
        """Take an answered request into account. codec_s: wall time in which it was decoded, resized or encoded."""
        one_thread_s = codec_s * min(self._codec_threads, coding.files)
        self._speed(coding).learn(coding.size_px, one_thread_s, max(1, coding.pixels), self._clock())

    def _codec_s_per_px(self, coding: Coding) -> float:
        return self._speed(coding).value(self._clock(), coding.size_px) or 0.0

    def _speed(self, coding: Coding) -> Speed:
        guess = FIRST_GUESSES_S_PER_PX.get(coding.kind, FIRST_GUESS_S_PER_PX)
        return self._codecs.setdefault(coding.kind, Speed(guess))
