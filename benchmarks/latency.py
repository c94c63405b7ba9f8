"""`python -m benchmarks.latency`: a real server under load, against the same engines called directly in the same run.

The server is a process of its own, so that its memory is its own; the callers share the machine with it. Every ratio
is of two measurements made one after the other, since a machine's speed drifts.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from benchmarks import engines, machine, plots
from benchmarks.load import Loop, at_once, beside, direct, generate, through_server, upscale
from benchmarks.subjects import deep_bundle, opened, serving
from runtime import bundle
from runtime.bundle import Bundle
from runtime.tiling import geometry
from runtime.tiling.inline import run_picture

DEEP_DURATION_S = 90.0  # a tile takes seconds: a ratio of dozens of answers, not of a handful
CROWD = 16
POSTER_HW = (700, 1000)
THUMBNAIL_PX = 64
MEMORY_LIMIT_MIB = 1024
OVERHEAD_CALLERS = 4
OVERHEAD_ROUNDS = 2
Report = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """duration_s: of each loop; longest_s: even where few were answered. callers: concurrencies.

    counts: samples of one Generate. posters: clients with a 1000×700 image each, for memory and fairness.
    """

    duration_s: float
    callers: tuple[int, ...]
    counts: tuple[int, ...]
    posters: int
    backend: str
    longest_s: float

    @property
    def loop(self) -> Loop:
        return Loop(self.duration_s, max_s=self.longest_s)


@click.command(context_settings={"max_content_width": 110})
@click.option("--bundles", type=click.Path(exists=True, path_type=Path), default="bundles", show_default=True)
@click.option("--deep", type=click.Path(path_type=Path), default="build/bench/rrdb-23", show_default=True,
              help="Bundle of RRDB-23 with random weights; built where it is missing.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default="benchmarks/results", show_default=True)
@click.option("--duration-s", type=float, default=10.0, show_default=True, help="Seconds of each loop.")
@click.option("--backend", default="auto", show_default=True)
@click.option("--quick", is_flag=True, help="A minute or two: short loops, few of them, no RRDB-23.")
@click.option(
    "--only", type=click.Choice(["bundles", "deep"]), help="One half; the other stays as the output has it."
)
def main(
    bundles: Path, deep: Path, output: Path, duration_s: float, backend: str, quick: bool, only: str | None
) -> None:
    """Measure what the server adds to its engines: time, throughput, fairness and memory."""
    options = (
        Options(min(duration_s, 2.0), (1, 4), (1, 16), 4, backend, 20.0)
        if quick
        else Options(duration_s, (1, 2, 4, 8, 16), (1, 16, 64), CROWD, backend, 240.0)
    )
    here = machine.describe()
    say("machine", f"{here['cpu']}, {here['cores']} cores")
    found = bundle.discover(bundles)
    upscaler = next(one for one in found if one.manifest.task == "upscale")
    report = earlier(output / "latency.json") if only else {}
    if only != "deep":
        report["bundles"] = about(here, options, quick=quick) | {
            "memory": memory(bundles, upscaler, options),
            "overhead": overhead(bundles, upscaler, options),
            "useful_work": useful_work(bundles, upscaler, options),
            "upscale": upscale_latency(bundles, upscaler, options),
            "generate": [
                generate_latency(bundles, one, options) for one in found if one.manifest.task == "generate"
            ],
            "fairness": fairness(bundles, upscaler, options),
        }
    if only == "deep" or not (only or quick):
        one = deep_bundle(deep, halo=upscaler.manifest.halo)
        longer = replace(options, duration_s=max(DEEP_DURATION_S, duration_s))
        report["deep"] = about(here, longer, quick=False) | {
            "overhead": overhead(deep.parent, one, longer),
            "useful_work": useful_work(deep.parent, one, options, callers=1),
        }
    output.mkdir(parents=True, exist_ok=True)
    (output / "latency.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plots.latency(report, output / "latency.png")
    say("written", f"{output / 'latency.json'} and {output / 'latency.png'}")


def about(here: dict[str, object], options: Options, *, quick: bool) -> Report:
    return {"machine": here, "duration_s": options.duration_s, "quick": quick}


def earlier(path: Path) -> Report:
    """The other half's figures, from a run before. Each half says what machine it was measured on."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def say(what: str, result: str) -> None:
    click.echo(f"{what:<16} {result}")
    sys.stdout.flush()


def overhead(folder: Path, one: Bundle, options: Options) -> Report:
    """Tile-sized PNG in and out at concurrency 4, against the engine alone and against what the codecs leave."""
    side, cores = one.manifest.tile_sizes[-1], int(str(machine.describe()["cores"]))
    file = engines.png(engines.photograph(side, side))
    call, served, raw = upscale(one.manifest.name, file), [], []
    with opened(one, options.backend) as engine, serving(folder, options.backend) as (server, _):
        for _ in range(OVERHEAD_ROUNDS):  # in turns, since a machine's speed drifts
            raw.append(engines.tiles(engine, loop=options.loop))
            served.append(through_server(server.address, call, callers=OVERHEAD_CALLERS, loop=options.loop))
        raw.append(engines.tiles(engine, loop=options.loop))
        codec_s = engines.codec_s(engine, file)
    raw_per_s, served_per_s = (statistics.mean(one.per_s for one in rounds) for rounds in (raw, served))
    allowed_per_s = 1 / (1 / raw_per_s + codec_s / cores)
    report = {
        "model": one.manifest.name,
        "precision": engine.precision,
        "tile": side,
        "raw_per_s": [round(one.per_s, 4) for one in raw],
        "served_per_s": [round(one.per_s, 4) for one in served],
        "served": served[-1].report(),
        "codec_ms_of_one_core": round(codec_s * 1e3, 2),
        "of_raw": round(served_per_s / raw_per_s, 3),
        "of_allowed": round(served_per_s / allowed_per_s, 3),
    }
    rates = ", ".join(f"{one.per_s:.3f}" for one in raw)
    say("overhead", f"{one.manifest.name} ({report['precision']}), {side}×{side} PNG at concurrency {OVERHEAD_CALLERS}: "
        f"{served_per_s:.3f}/s served, {rates}/s raw: {report['of_raw']} of raw, "
        f"{report['of_allowed']} of what engine and codec ({codec_s * 1e3:.1f} ms of one core) allow")  # fmt: skip
    return report


def useful_work(folder: Path, one: Bundle, options: Options, *, callers: int = 2) -> Report:
    """A 1000×700 image through the server, against the engine on the whole of it at once.

    callers: two keep the device busy while one's answer is encoded; one is enough where that is a trifle.
    """
    image, manifest = engines.photograph(*POSTER_HW), one.manifest
    call = upscale(manifest.name, engines.png(image))
    with opened(one, options.backend) as engine, serving(folder, options.backend) as (server, _):
        served = through_server(
            server.address,
            call,
            callers=callers,
            loop=Loop(options.duration_s, min_calls=3, max_s=options.longest_s),
        )
        repeats = 3 if served.p50_ms < 20_000 else 1
        whole_s = engines.whole_image_s(engine, image, repeats=repeats)
        tile = geometry.choose_tile(*POSTER_HW, tile_sizes=manifest.tile_sizes, halo=manifest.halo)
        seen = geometry.computed_px(*POSTER_HW, tile=tile, halo=manifest.halo)
    report = {
        "model": manifest.name,
        "tile": tile,
        "halo": manifest.halo,
        "pixels_seen_per_pixel": round(seen / (POSTER_HW[0] * POSTER_HW[1]), 3),
        "served_per_s": round(served.per_s, 4),
        "whole_s": round(whole_s, 3),
        "ratio": round(served.per_s * whole_s, 3),
    }
    halos = f"tile {tile}, halo {manifest.halo}, {report['pixels_seen_per_pixel']} pixels seen per pixel"
    say(
        "useful work",
        f"{manifest.name}, 1000×700 ({halos}): served {report['ratio']} of the whole image at once",
    )
    return report


def upscale_latency(folder: Path, one: Bundle, options: Options) -> list[Report]:
    """A 256×256 photograph at several concurrencies; the same tiles straight through the engine beside it."""
    image, manifest = engines.photograph(256, 256), one.manifest
    call, rows = upscale(manifest.name, engines.png(image)), []
    with opened(one, options.backend) as engine, serving(folder, options.backend) as (server, _):
        bare = direct(
            lambda: run_picture(engine, image),
            callers=engine.slots,
            loop=options.loop,
        )
        for callers in options.callers:
            served = through_server(server.address, call, callers=callers, loop=options.loop)
            rows.append(served.report() | {"of_raw": round(served.per_s / bare.per_s, 3)})
            told = percentiles(rows[-1])
            say(
                "upscale", f"256×256 by {callers:2}: {told}, {rows[-1]['of_raw']} of raw ({bare.per_s:.2f}/s)"
            )
    return rows


def generate_latency(folder: Path, one: Bundle, options: Options) -> Report:
    """Samples at several counts and concurrencies, against the engine's own batches of that count."""
    name, rows = one.manifest.name, []
    with serving(folder, options.backend) as (server, mean_batch), opened(one, options.backend) as engine:
        for count in options.counts:
            bare = engines.samples(engine, count, loop=options.loop)
            for callers in options.callers:
                served = through_server(
                    server.address, generate(name, count), callers=callers, loop=options.loop
                )
                row = {"count": count} | served.report() | {"of_raw": round(served.per_s / bare.per_s, 3)}
                rows.append(row)
                say("generate", f"{name} {count:2} by {callers:2}: {percentiles(row)}, {served.per_s * count:.0f} samples/s, "
                    f"{row['of_raw']} of raw ({bare.per_s:.2f}/s, no PNG)")  # fmt: skip
    say("batches", f"{name}: {mean_batch()} samples a batch on average")
    return {"model": name, "mean_batch": mean_batch(), "rows": rows}


def fairness(folder: Path, one: Bundle, options: Options) -> Report:
    """Sixteen clients with sixteen different sizes at once; and a thumbnail beside posters against alone."""
    name = one.manifest.name
    sizes = [(32 + 40 * index, 48 + 36 * index) for index in range(CROWD)]
    small = upscale(name, engines.png(engines.photograph(THUMBNAIL_PX, THUMBNAIL_PX)))
    poster = upscale(name, engines.png(engines.photograph(*POSTER_HW)))
    with serving(folder, options.backend) as (server, mean_batch):
        calls = [upscale(name, engines.png(engines.photograph(*size))) for size in sizes]
        took_ms = at_once(server.address, calls)
        alone = beside(server.address, small, [], loop=options.loop)
        crowded = beside(server.address, small, [poster] * options.posters, loop=options.loop)
    crowd = [
        {
            "size": f"{width}×{height}",
            "ms": round(ms, 1),
            "ms_per_kilopixel": round(ms / height / width * 1e3, 2),
        }
        for (height, width), ms in zip(sizes, took_ms, strict=True)
    ]
    in_order = all(earlier <= later for earlier, later in pairwise(took_ms))
    for row in crowd:
        say(
            "fairness",
            f"{CROWD} sizes at once: {row['size']:>8} in {row['ms']:8.1f} ms, {row['ms_per_kilopixel']} ms/kpx",
        )
    say("fairness", f"smaller ones were answered before larger ones: {in_order}; mean batch {mean_batch()}")
    say("fairness", f"{THUMBNAIL_PX}×{THUMBNAIL_PX} alone p50 {alone.p50_ms:.0f} ms, beside {options.posters} clients "
        f"with 1000×700 p50 {crowded.p50_ms:.0f}, p99 {crowded.p99_ms:.0f} ms")  # fmt: skip
    thumbnail = {"alone": alone.report(), "beside_posters": crowded.report(), "posters": options.posters}
    return {"crowd": crowd, "in_order_of_size": in_order, "mean_batch": mean_batch(), "thumbnail": thumbnail}


def memory(folder: Path, one: Bundle, options: Options) -> Report:
    """Resident memory with every bundle warm, and its peak under sixteen 1000×700 images at once."""
    poster = upscale(one.manifest.name, engines.png(engines.photograph(*POSTER_HW)))
    with serving(folder, options.backend) as (server, _):
        warm_mib = machine.resident_mib(server.pid)
        with machine.watched(server.pid) as peak:
            at_once(server.address, [poster] * options.posters)
    above_mib = peak.mib - warm_mib
    say("memory", f"{warm_mib:.0f} MiB with every bundle of {folder} warm")
    kept = "kept" if above_mib <= MEMORY_LIMIT_MIB else "BROKEN"
    load = f"{options.posters} images of 1000×700 at once"
    say("memory", f"{above_mib:.0f} MiB above it with {load} (limit {MEMORY_LIMIT_MIB}: {kept})")
    return {
        "warm_mib": round(warm_mib),
        "peak_above_mib": round(above_mib),
        "limit_mib": MEMORY_LIMIT_MIB,
        "images": options.posters,
    }


def percentiles(row: Report) -> str:
    return (
        f"p50 {row['p50_ms']:.0f}, p90 {row['p90_ms']:.0f}, p99 {row['p99_ms']:.0f} ms, {row['per_s']:.2f}/s"
    )


if __name__ == "__main__":
    main()
