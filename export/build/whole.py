"""Measures the largest picture that a network which is never tiled can serve here; sizes.py calls `measure`.

Such a picture occupies the device alone, and needs memory in proportion to its pixels. So larger and larger pictures are run
until one takes too long or too much memory. The one before is the limit that the bundle states; servers refuse larger ones.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from export.build import photographs
from export.families.spec import Signature
from runtime.backends.base import Engine
from runtime.errors import EngineError, InvalidInput
from runtime.sides import side_of, side_within
from runtime.tensors import Array
from runtime.values import to_model

# Sides of the squares that are tried, in input pixels: twice the area each time, up to a camera's 24 megapixels.
SIDES = (128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 2896, 4096, 4899)
# Seconds for which a picture may occupy the device: other requests have to wait for it.
LONGEST_S = 4.0
# By how much a picture may raise the process's peak memory over that before the search.
MOST_BYTES = 2 << 30


@dataclass(frozen=True)
class TimedPicture:
    """A square picture that was run. side: in input pixels. ms: of its second run. mib: growth of the process's peak memory
    since the search began.
    """

    side: int
    ms: float
    mib: float


@dataclass(frozen=True)
class Limit:
    """The outcome. max_px: pixels of the largest picture. reason: why no larger one, in words. runs: what was measured."""

    max_px: int
    reason: str
    runs: tuple[dict[str, float], ...]

    def report(self) -> dict[str, object]:
        return asdict(self) | {"longest_s": LONGEST_S, "most_bytes": MOST_BYTES}


def check(signature: Signature, max_px: int | None) -> None:
    """Raises InvalidInput if the limit that the user gave is smaller than any picture."""
    least = side_of(signature, 1) ** 2
    if max_px is not None and max_px < least:
        raise InvalidInput("max_whole_px", f"got {max_px}, expected {least} pixels or more")


def measure(
    engine: Engine,
    max_px: int | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
    peak_bytes: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
) -> Limit:
    """Run larger and larger pictures through `engine`. max_px: a limit that the user gave: only it is run, and kept.

    clock: in seconds. peak_bytes: the process's peak memory so far.
    Raises EngineError if even the smallest picture cannot be run.
    """
    manifest, before_bytes = engine.manifest, peak_bytes()

    def run_square(side: int) -> TimedPicture:
        ms = _second_run_s(engine, side, clock) * 1e3
        return TimedPicture(side, round(ms, 3), round((peak_bytes() - before_bytes) / 2**20, 1))

    if max_px is not None:
        run = run_square(side_within(manifest, math.isqrt(max_px)))
        return Limit(max_px, "asked for", (asdict(run),))
    runs: list[TimedPicture] = []
    reason = "no larger one was tried"
    for side in dict.fromkeys(side_within(manifest, side) for side in SIDES):
        try:
            run = run_square(side)
        except EngineError as error:
            if not runs:
                raise
            reason = f"{side}×{side} failed: {error}"
            break
        if runs and (run.ms > LONGEST_S * 1e3 or run.mib > MOST_BYTES / 2**20):
            reason = f"{side}×{side} took {run.ms / 1e3:.1f} s and {run.mib:,.0f} MiB"
            break
        runs.append(run)
    return Limit(runs[-1].side ** 2, reason, tuple(asdict(run) for run in runs))


def _second_run_s(engine: Engine, side: int, clock: Callable[[], float]) -> float:
    """Seconds of the second run: the first also prepares kernels and memory."""
    inputs = _picture(engine, side)
    engine.run(inputs)
    started = clock()
    engine.run(inputs)
    return clock() - started


def _picture(engine: Engine, side: int) -> dict[str, Array]:
    spec = engine.manifest.inputs[0]
    channels = spec.shape[1]
    assert isinstance(channels, int), "channels are fixed in every signature"
    return {spec.name: to_model(photographs.crop(side, side, channels=channels), spec)[None]}
