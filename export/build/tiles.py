"""Chooses tile and halo by measurement on photographs; sizes.py calls `choose` with the engines and gets a Choice.

The halo's pixels are computed and thrown away, so it is what tiling costs. How wide it must be depends on the weights. The
halo is the least whose stitched output equals whole-image inference; the tile is the one with the least time per useful
pixel, of which it has (tile - 2·halo)². The error of a stitched image depends on the halo and hardly on the tile, so the
halo is searched with one tile and the chosen pair is compared again.

Of tiles that are about as fast, the smallest is taken, because a request waits for the tiles in front of it. Smaller tiles,
down to half its side, are served too, for images that it would cover badly: 200×200 is four tiles of 192, or of 128.

Comparisons use the hardest case: tiles overlap by exactly twice the halo.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import reduce

from export.build import photographs
from export.build.compare import Difference, difference
from export.families.spec import Signature
from runtime.backends.base import Engine
from runtime.errors import InvalidInput
from runtime.sides import side_of
from runtime.tensors import Array
from runtime.tiling.inline import run_picture, run_whole
from runtime.values import to_model

TILES = (96, 128, 192, 256)
HALOS = (4, 6, 8, 10, 12, 16, 24, 32, 48)
# A smaller tile is preferred if its time per useful pixel is at most so many times the fastest tile's.
ABOUT_AS_FAST = 1.1
REQUIRED_DB = 60.0
# Nobody sees a seam if no pixel changes by more than one of 256 levels. Half of that is required here, since other
# pictures may be harder than the few that are measured.
REQUIRED_LEVELS = 0.5
REQUIRED_MAX = REQUIRED_LEVELS / 255
# Pictures are compared in [0, 1], whatever range the network has.
PEAK = 1.0
# Seconds a search should take. A network too slow for it is measured on one photograph and on smaller pieces.
BUDGET_S = 90.0
# Side in pixels of the first picture, which shows how fast the network is.
TRIAL_PX = 64
# Tiles up to this side are timed however long the search has taken, so that there is something to choose from.
ALWAYS_TIMED_PX = 192
# A tile is run again and again for so many seconds, but at least once.
TIMED_S = 0.2


@dataclass(frozen=True)
class Choice:
    """The chosen tile and halo, in input pixels, and what was measured.

    sizes: the tile and the smaller ones that are served too, ascending. close: how far a stitched image is from the whole
    one. good: whether that is as close as required.
    halos: {"tile", "halo", "psnr_db", "max_abs"} per comparison made.
    tiles: {"tile", "ms", "ns_per_useful_px"} per tile timed.
    """

    tile: int
    halo: int
    sizes: tuple[int, ...]
    close: Difference
    good: bool
    halos: tuple[dict[str, float], ...] = field(default=())
    tiles: tuple[dict[str, float], ...] = field(default=())

    def report(self) -> dict[str, object]:
        required = {"psnr_db": REQUIRED_DB, "max_levels": REQUIRED_LEVELS}
        return asdict(self) | {"required": required, "photographs": photographs.NAMES}


def check(signature: Signature, tile: int | None, halo: int | None) -> None:
    """Raises InvalidInput if a tile or halo that the user gave cannot work."""
    multiple, least = signature.size_multiple, side_of(signature, 1)
    if tile is not None and (tile < least or tile % multiple):
        expected = (
            "a positive number of pixels"
            if least == 1
            else f"a multiple of {multiple} pixels, at least {least}"
        )
        raise InvalidInput("tile", f"got {tile}, expected {expected}")
    if halo is not None and halo < 0:
        raise InvalidInput("halo", f"got {halo}, expected 0 pixels or more")
    if halo is not None and not _fits(tile or max(TILES), halo, multiple):
        raise InvalidInput(
            "halo", f"got {halo} with a tile of {tile or max(TILES)}, expected less than half of the tile"
        )
    if tile is not None and halo is None and not _fits(tile, min(HALOS), multiple):
        raise InvalidInput(
            "tile", f"got {tile}, expected more than {2 * min(HALOS)} pixels, or give --halo as well"
        )


def choose(
    engine: Engine,
    comparer: Engine,
    *,
    tile: int | None = None,
    halo: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Choice:
    """Find the best tile and halo.

    engine: is timed. comparer: computes stitched and whole images, in float32: rounding to a narrower type would hide how
    large a halo the weights need. tile, halo: in input pixels, what the user asked for; None to measure. clock: seconds.
    """
    search = TileSearch(engine, comparer, clock)
    multiple = engine.manifest.size_multiple
    takes = [size for size in TILES if size % multiple == 0 and size >= engine.manifest.least_side_px]
    tiles = [tile] if tile else takes
    if halo is None:
        halo = search.least_halo(tiles[0], [size for size in HALOS if _fits(tiles[0], size, multiple)])
    chosen = search.fastest_tile(tiles, halo)
    close = search.compare(chosen, halo, thorough=True)
    if not tile and not is_seamless(close) and halo < max(HALOS):
        # Larger pictures showed seams: take the next larger halo, once.
        halo = next(size for size in HALOS if size > halo)
        chosen = search.fastest_tile(tiles, halo)
        close = search.compare(chosen, halo, thorough=True)
    fitting = (size for size in tiles if _fits(size, halo, multiple))
    return Choice(
        tile=chosen,
        halo=halo,
        sizes=tuple(size for size in fitting if chosen <= 2 * size <= 2 * chosen),
        close=close,
        good=is_seamless(close),
        halos=search.compared_rows(),
        tiles=search.timed_rows(halo),
    )


def useful_side(tile: int, halo: int, multiple: int = 1) -> int:
    """How many pixels of a tile's side remain when the halo is cut off, a multiple of `multiple`."""
    return (tile - 2 * halo) // multiple * multiple


def is_seamless(difference: Difference) -> bool:
    """Whether a stitched image, in [0, 1], is as close to the whole one as is required."""
    return difference.psnr_db >= REQUIRED_DB and difference.max_abs <= REQUIRED_MAX


class TileSearch:
    """The measurements of one search. Each tile is timed once, and all comparisons are kept for the report."""

    def __init__(self, engine: Engine, comparer: Engine, clock: Callable[[], float]) -> None:
        self.engine, self.comparer, self._clock = engine, comparer, clock
        self._multiple = engine.manifest.size_multiple
        self._tile_s: dict[int, float] = {}  # tile → seconds a tile, all slots busy
        self._compared: dict[tuple[int, int], Difference] = {}  # (tile, halo) → stitched against whole
        self._started = clock()
        self._px_per_s = self._trial()
        # A bisection of the halos takes about four comparisons. Use all photographs if that takes less than half of the budget.
        probe = 4 * _compared_px(TILES[0], 0)
        affordable = self._affordable(2 * probe * len(photographs.NAMES))
        self._names = photographs.NAMES if affordable else photographs.NAMES[:1]

    def least_halo(self, tile: int, halos: list[int]) -> int:
        """The least of `halos` without seams, by bisection; the largest if all have seams."""
        low, high = 0, len(halos) - 1
        while low < high:
            middle = (low + high) // 2
            if is_seamless(self.compare(tile, halos[middle])):
                high = middle
            else:
                low = middle + 1
        return halos[low]

    def fastest_tile(self, tiles: list[int], halo: int) -> int:
        """The smallest of the tiles whose time per useful pixel is about the least."""
        tiles = [size for size in tiles if _fits(size, halo, self._multiple)]
        for size in tiles:
            affordable = size <= ALWAYS_TIMED_PX or self._affordable(size * size * self.engine.slots)
            if size not in self._tile_s and affordable:
                self._tile_s[size] = self._time(size)
        s_per_px = {
            size: self._tile_s[size] / useful_side(size, halo, self._multiple) ** 2
            for size in tiles
            if size in self._tile_s
        }
        limit = ABOUT_AS_FAST * min(s_per_px.values(), default=0.0)
        return next((size for size, cost in s_per_px.items() if cost <= limit), tiles[0])

    def compare(self, tile: int, halo: int, *, thorough: bool = False) -> Difference:
        """How far stitched images are from whole ones, where tiles overlap by exactly 2·halo.

        thorough: the final comparison of a pair. A slow network then gets two tiles instead of four, and a very slow
        one smaller tiles.
        """
        if thorough and not self._affordable(_compared_px(tile, halo) // 2):
            smaller = (size for size in TILES if size < tile and _fits(size, halo, self._multiple))
            tile = min(smaller, default=tile)
        long = tile + useful_side(tile, halo, self._multiple)
        square = not thorough or self._affordable(_compared_px(tile, halo) * len(self._names))
        images = [self._photograph(name, long if square else tile, long) for name in self._names]
        worst = reduce(
            Difference.worst, (self._stitched_against_whole(image, tile, halo) for image in images)
        )
        self._compared[tile, halo] = worst
        return worst

    def compared_rows(self) -> tuple[dict[str, float], ...]:
        """What was compared, for the report."""
        return tuple(
            {"tile": tile, "halo": halo, "psnr_db": difference.psnr_db, "max_abs": difference.max_abs}
            for (tile, halo), difference in self._compared.items()
        )

    def timed_rows(self, halo: int) -> tuple[dict[str, float], ...]:
        """What was timed and leaves useful pixels at this halo, for the report."""
        return tuple(
            {
                "tile": size,
                "ms": round(seconds * 1e3, 3),
                "ns_per_useful_px": round(seconds * 1e9 / useful_side(size, halo, self._multiple) ** 2, 1),
            }
            for size, seconds in self._tile_s.items()
            if _fits(size, halo, self._multiple)
        )

    def _photograph(self, name: str, height: int, width: int) -> Array:
        """[C, H, W] float32 in [0, 1]."""
        channels = self.engine.manifest.inputs[0].shape[1]
        assert isinstance(channels, int), "channels are fixed in every signature"
        return photographs.crop(height, width, channels=channels, name=name)

    def _stitched_against_whole(self, image: Array, tile: int, halo: int) -> Difference:
        tiled = replace(self.comparer.manifest, tile_sizes=(tile,), halo=halo)
        with ThreadPoolExecutor(1) as other:
            whole = other.submit(run_whole, self.comparer, image)
            stitched = run_picture(self.comparer, image, tiled)
            return difference(stitched, whole.result(), peak=PEAK)

    def _trial(self) -> float:
        """Run the comparer once; its speed in pixels a second."""
        image = self._photograph(photographs.NAMES[0], TRIAL_PX, TRIAL_PX)
        started = self._clock()
        run_whole(self.comparer, image)
        return TRIAL_PX**2 / max(self._clock() - started, 1e-9)

    def _affordable(self, pixels: int) -> bool:
        return self._clock() - self._started + pixels / self._px_per_s < BUDGET_S

    def _time(self, tile: int) -> float:
        """Seconds a tile takes while every slot of the engine is busy: the best of a few rounds."""
        source = self.engine.manifest.inputs[0]
        inputs = {source.name: to_model(self._photograph(photographs.NAMES[0], tile, tile), source)[None]}
        best, spent = float("inf"), 0.0
        with ThreadPoolExecutor(self.engine.slots) as pool:
            while spent < TIMED_S:
                started = self._clock()
                list(pool.map(lambda _: self.engine.run(inputs), range(self.engine.slots)))
                took = self._clock() - started
                best, spent = min(best, took / self.engine.slots), spent + took
        return best


def _fits(tile: int, halo: int, multiple: int) -> bool:
    return useful_side(tile, halo, multiple) > 0


def _compared_px(tile: int, halo: int) -> int:
    """Pixels the network sees for one comparison: four tiles, and the whole that they cover."""
    return (2 * (tile - halo)) ** 2 + 4 * tile * tile
