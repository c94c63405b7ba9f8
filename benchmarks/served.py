"""The measurements of a served model: overhead, tiling's cost, latency under load, fairness, memory.

`python -m benchmarks.latency` and `python -m benchmarks.figures` call these. Each measurement starts a server in its own
process, so that its memory can be measured, on the same machine as the callers. It prints the result and returns it as a
dict for the JSON report. Where two speeds are compared, they are measured in turns (turns.py).
"""

from __future__ import annotations

import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import engines, machine
from benchmarks.load import (
    Call,
    Duration,
    Measured,
    arrivals,
    at_once,
    beside,
    generate_call,
    picture_call,
    through_server,
)
from benchmarks.serving import open_engine, running_server
from benchmarks.turns import Turn, in_turns, order_share
from runtime import tasks
from runtime.bundle import Bundle
from runtime.tensors import Array
from runtime.tiling import geometry

POSTER_HW = (700, 1000)
PHOTO_HW = (256, 256)
THUMBNAIL_PX = 64
CROWD = 16
MEMORY_LIMIT_MIB = 1024
OVERHEAD_CALLERS = 4
ROUNDS = 2
# The request rates of the open loops, as shares of the engine's own rate.
OFFERED = (0.5, 0.8)
Report = dict[str, Any]


@dataclass(frozen=True)
class LoadParameters:
    """How much load a benchmark makes.

    duration: of each closed loop. callers: the concurrencies to measure. counts: the numbers of samples a Generate call
    asks for. posters: clients with a 1000×700 image each, for memory and fairness. arrivals: requests of an open loop;
    0 for no open loop. backend: a name, or "auto".
    """

    duration: Duration
    callers: tuple[int, ...]
    counts: tuple[int, ...]
    posters: int
    arrivals: int
    backend: str


def say(what: str, result: str) -> None:
    click.echo(f"{what:<16} {result}")
    sys.stdout.flush()


def call_of(bundle: Bundle, image: Array) -> Call:
    """A request to a model that takes pictures. image: [3, H, W] float32 in [0, 1]."""
    return picture_call(tasks.of(bundle.manifest), bundle.manifest.name, engines.png(image))


def overhead(folder: Path, bundle: Bundle, parameters: LoadParameters) -> Report:
    """Throughput of tile-sized PNG images at concurrency 4.

    "of_raw": as a share of the engine's own. "of_allowed": as a share of what engine and codecs together allow.
    """
    side, cores = bundle.manifest.tile_sizes[-1], int(str(machine.describe()["cores"]))
    photograph = engines.photograph(side, side)
    call, duration = call_of(bundle, photograph), parameters.duration
    with (
        open_engine(bundle, parameters.backend) as engine,
        running_server(folder, parameters.backend) as (server, _),
    ):
        turns = in_turns(
            [OVERHEAD_CALLERS] * ROUNDS,
            raw=lambda: engines.tiles(engine, duration=duration),
            served=lambda callers: through_server(server.address, call, callers=callers, duration=duration),
        )
        codec_s = engines.codec_s(engine, engines.png(photograph))
        precision = engine.precision
    raw_per_s = statistics.mean(turn.raw_per_s for turn in turns)
    served_per_s = statistics.mean(turn.served.per_s for turn in turns)
    allowed_per_s = 1 / (1 / raw_per_s + codec_s / cores)
    report = {
        "model": bundle.manifest.name,
        "precision": precision,
        "tile": side,
        "raw_per_s": [round(turn.raw_per_s, 4) for turn in turns],
        "served_per_s": [round(turn.served.per_s, 4) for turn in turns],
        "served": turns[-1].served.report(),
        "codec_ms_of_one_core": round(codec_s * 1e3, 2),
        "of_raw": round(served_per_s / raw_per_s, 3),
        "of_allowed": round(served_per_s / allowed_per_s, 3),
    }
    say("overhead", f"{bundle.manifest.name} ({precision}), {side}×{side} PNG at concurrency {OVERHEAD_CALLERS}: "
        f"{served_per_s:.3f}/s served, {raw_per_s:.3f}/s raw: {report['of_raw']} of raw, "
        f"{report['of_allowed']} of what engine and codec ({codec_s * 1e3:.1f} ms of one core) allow")  # fmt: skip
    return report


def useful_work(folder: Path, bundle: Bundle, parameters: LoadParameters, *, callers: int = 2) -> Report:
    """What tiling costs: a 1000×700 image through the server, against the network run once over the whole image.

    callers: two keep the device busy while an answer is encoded; one is enough where encoding takes hardly any time.
    """
    image, manifest = engines.photograph(*POSTER_HW), bundle.manifest
    call, duration = call_of(bundle, image), parameters.duration
    loop = Duration(duration.duration_s, min_calls=3, max_s=duration.max_s)
    served_per_s, whole_s = [], []
    with (
        open_engine(bundle, parameters.backend) as engine,
        running_server(folder, parameters.backend) as (server, _),
    ):
        whole = engines.whole_image(engine, image)
        for _ in range(ROUNDS):
            whole_s.append(engines.seconds(whole))
            served_per_s.append(through_server(server.address, call, callers=callers, duration=loop).per_s)
        whole_s.append(engines.seconds(whole))
    tile = geometry.choose_tile(*POSTER_HW, tile_sizes=manifest.tile_sizes, halo=manifest.halo)
    seen = geometry.computed_px(*POSTER_HW, tile=tile, halo=manifest.halo)
    report = {
        "model": manifest.name,
        "tile": tile,
        "halo": manifest.halo,
        "pixels_seen_per_pixel": round(seen / (POSTER_HW[0] * POSTER_HW[1]), 3),
        "served_per_s": [round(rate, 4) for rate in served_per_s],
        "whole_s": [round(value, 3) for value in whole_s],
        "ratio": round(statistics.mean(served_per_s) * statistics.mean(whole_s), 3),
    }
    halos = f"tile {tile}, halo {manifest.halo}, {report['pixels_seen_per_pixel']} pixels computed per pixel"
    say(
        "useful work",
        f"{manifest.name}, 1000×700 ({halos}): served {report['ratio']} of the whole image at once",
    )
    return report


def picture_latency(folder: Path, bundle: Bundle, parameters: LoadParameters) -> Report:
    """Latency of a 256×256 photograph in closed loops at several concurrencies, then in open loops.

    The engine's own rate is measured before and after each concurrency.
    """
    image, duration = engines.photograph(*PHOTO_HW), parameters.duration
    call, name = call_of(bundle, image), bundle.manifest.name

    def show(turn: Turn[int]) -> None:
        say("picture", f"{name} 256×256 by {turn.level:2}: {line(turn)}")

    with (
        open_engine(bundle, parameters.backend) as engine,
        running_server(folder, parameters.backend) as (server, _),
    ):
        turns = in_turns(
            parameters.callers,
            raw=lambda: engines.pictures(engine, image, duration=duration),
            served=lambda callers: through_server(server.address, call, callers=callers, duration=duration),
            on_turn=show,
        )
        raw_per_s = turns[-1].raw_per_s
        open_loops = open_loop_rows(server.address, call, raw_per_s, parameters, f"{name} 256×256")
    return {"model": name, "rows": [row(turn) for turn in turns], "open_loops": open_loops}


def sample_latency(folder: Path, bundle: Bundle, parameters: LoadParameters) -> Report:
    """Latency of samples at several counts and concurrencies; the engine's own rate is measured before and after each."""
    name, duration, rows = bundle.manifest.name, parameters.duration, []
    with (
        running_server(folder, parameters.backend) as (server, mean_batch),
        open_engine(bundle, parameters.backend) as engine,
    ):
        for count in parameters.counts:

            def raw(count: int = count) -> Measured:
                return engines.samples(engine, count, duration=duration)

            def served(callers: int, count: int = count) -> Measured:
                call = generate_call(name, count)
                return through_server(server.address, call, callers=callers, duration=duration)

            def show(turn: Turn[int], count: int = count) -> None:
                rate = f"{turn.served.per_s * count:.0f} samples/s"
                say("samples", f"{name} {count:2} by {turn.level:2}: {line(turn)}, {rate}; raw makes no PNG")

            turns = in_turns(parameters.callers, raw=raw, served=served, on_turn=show)
            rows += [{"count": count} | row(turn) for turn in turns]
    say("batches", f"{name}: {mean_batch()} samples a batch on average")
    return {"model": name, "mean_batch": mean_batch(), "rows": rows}


def open_loop_rows(
    address: str, call: Call, raw_per_s: float, parameters: LoadParameters, what: str
) -> list[Report]:
    """Rows of the report: open loops at several shares of `raw_per_s`, the engine's own rate."""
    rows = []
    for offered in OFFERED if parameters.arrivals else ():
        measured = arrivals(address, call, per_s=offered * raw_per_s, calls=parameters.arrivals)
        say("open loop", f"{what} at {offered} of raw ({offered * raw_per_s:.2f}/s): {percentiles(measured)}")
        rows.append(measured.report() | {"offered_of_raw": offered})
    return rows


def fairness(folder: Path, bundle: Bundle, parameters: LoadParameters) -> Report:
    """Whether small requests wait behind large ones: sixteen sizes sent at once in random order, and a thumbnail's latency
    alone and beside clients with large images.
    """
    sizes = crowd_sizes()
    small = call_of(bundle, engines.photograph(THUMBNAIL_PX, THUMBNAIL_PX))
    poster = call_of(bundle, engines.photograph(*POSTER_HW))
    duration = parameters.duration
    with running_server(folder, parameters.backend) as (server, mean_batch):
        times_ms = at_once(server.address, [call_of(bundle, engines.photograph(*size)) for size in sizes])
        alone = beside(server.address, small, [], duration=duration)
        crowded = beside(server.address, small, [poster] * parameters.posters, duration=duration)
    in_order = order_share([height * width for height, width in sizes], times_ms)
    crowd = [
        {
            "size": f"{width}×{height}",
            "ms": round(ms, 1),
            "ms_per_kilopixel": round(ms / height / width * 1e3, 2),
        }
        for (height, width), ms in sorted(zip(sizes, times_ms, strict=True))
    ]
    for entry in crowd:
        say(
            "fairness",
            f"{CROWD} sizes at once: {entry['size']:>8} in {entry['ms']:8.1f} ms, {entry['ms_per_kilopixel']} ms/kpx",
        )
    say("fairness", f"of two sizes, sent in random order, the smaller was answered first in {100 * in_order:.0f} % "
        f"of pairs; mean batch {mean_batch()}")  # fmt: skip
    say("fairness", f"{THUMBNAIL_PX}×{THUMBNAIL_PX} alone {percentiles(alone)}; beside {parameters.posters} clients "
        f"with 1000×700 {percentiles(crowded)}")  # fmt: skip
    thumbnail = {
        "alone": alone.report(),
        "beside_posters": crowded.report(),
        "posters": parameters.posters,
    }
    return {
        "crowd": crowd,
        "smaller_first_share": round(in_order, 3),
        "mean_batch": mean_batch(),
        "thumbnail": thumbnail,
    }


def crowd_sizes() -> list[tuple[int, int]]:
    """Sixteen (height, width) in random order: sent in ascending order, a queue would look as fair as a fair scheduler."""
    sizes = [(32 + 40 * index, 48 + 36 * index) for index in range(CROWD)]
    random.Random(0).shuffle(sizes)
    return sizes


def memory(folder: Path, bundle: Bundle, parameters: LoadParameters) -> Report:
    """The server's resident memory with every bundle warm, and its peak while `parameters.posters` images of 1000×700 are
    upscaled at once, in MiB.
    """
    poster = call_of(bundle, engines.photograph(*POSTER_HW))
    with running_server(folder, parameters.backend) as (server, _):
        warm_mib = machine.resident_mib(server.pid)
        with machine.watched(server.pid) as peak:
            at_once(server.address, [poster] * parameters.posters)
    above_mib = peak.mib - warm_mib
    say("memory", f"{warm_mib:.0f} MiB with every bundle of {folder} warm and idle")
    kept = "kept" if above_mib <= MEMORY_LIMIT_MIB else "BROKEN"
    load = f"{parameters.posters} images of 1000×700 at once"
    say("memory", f"{above_mib:.0f} MiB above idle with {load} (limit {MEMORY_LIMIT_MIB}: {kept})")
    return {
        "warm_mib": round(warm_mib),
        "peak_above_mib": round(above_mib),
        "limit_mib": MEMORY_LIMIT_MIB,
        "images": parameters.posters,
    }


def row(turn: Turn[int]) -> Report:
    return turn.served.report() | {
        "raw_per_s": round(turn.raw_per_s, 4),
        "of_raw": round(turn.of_raw, 3),
    }


def line(turn: Turn[int]) -> str:
    return f"{percentiles(turn.served)}, {turn.of_raw:.3f} of raw ({turn.raw_per_s:.2f}/s)"


def percentiles(measured: Measured) -> str:
    stated = [("p50", measured.p50_ms), ("p90", measured.p90_ms), ("p99", measured.p99_ms)]
    listed = ", ".join(f"{name} {value:.0f}" for name, value in stated if value is not None)
    return f"{listed} ms of {measured.calls}, {measured.per_s:.2f}/s"
