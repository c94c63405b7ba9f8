"""`python -m benchmarks.latency`: a real server under load, against the same engines called directly in the same run.

The figures go to latency.json and latency.png in --output; `--only` measures one half again and keeps the other.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import machine, plots
from benchmarks.load import Duration
from benchmarks.served import (
    CROWD,
    LoadParameters,
    Report,
    fairness,
    memory,
    overhead,
    picture_latency,
    sample_latency,
    say,
    useful_work,
)
from benchmarks.serving import deep_bundle
from runtime import tasks
from runtime.bundle import Bundle, discover
from runtime.errors import GanforgeError
from runtime.tasks.task import ItemKind

DEEP_DURATION_S = 90.0  # a tile takes seconds: a ratio of dozens of answers, not of a handful
QUICK_DURATION_S = 2.0


def load_parameters(backend: str, *, duration_s: float, quick: bool) -> LoadParameters:
    """The parameters of a full run, or with `quick` of a few short loops that take minutes in all."""
    if quick:
        duration = Duration(min(duration_s, QUICK_DURATION_S), max_s=20.0)
        return LoadParameters(duration, (1, 4), (1, 16), posters=4, arrivals=0, backend=backend)
    return LoadParameters(
        Duration(duration_s), (1, 2, 4, 8, 16), (1, 16, 64), posters=CROWD, arrivals=100, backend=backend
    )


def by_items(bundles: Path) -> dict[ItemKind, list[Bundle]]:
    """The bundles of a folder by what their requests become: "tiles", "whole" or "samples".

    Raises click.ClickException where none cuts pictures into tiles, which every run measures.
    """
    groups: dict[ItemKind, list[Bundle]] = {"tiles": [], "whole": [], "samples": []}
    try:
        for bundle in discover(bundles):
            groups[tasks.items_of(bundle.manifest)].append(bundle)
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    if not groups["tiles"]:
        raise click.ClickException(
            f"{bundles} has no bundle of a tiled model, expected one; python -m export.build --model esrgan builds it"
        )
    return groups


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--bundles", type=click.Path(exists=True, path_type=Path), default="bundles", show_default=True)
@click.option("--deep", type=click.Path(path_type=Path), default="build/bench/rrdb-23", show_default=True,
              help="Bundle of RRDB-23 with random weights; built where it is missing.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default="benchmarks/results", show_default=True)
@click.option("--duration-s", type=float, default=10.0, show_default=True, help="Seconds of each loop.")
@click.option("--backend", default="auto", show_default=True)
@click.option("--quick", is_flag=True, help="A few minutes: short loops, few of them, no RRDB-23.")
@click.option(
    "--only",
    type=click.Choice(["bundles", "deep"]),
    help="Measure one half again; keep the other from the last run.",
)
def main(
    bundles: Path, deep: Path, output: Path, duration_s: float, backend: str, quick: bool, only: str | None
) -> None:
    """Measure what the server adds to its engines: time, throughput, fairness and memory."""
    parameters = load_parameters(backend, duration_s=duration_s, quick=quick)
    host = machine.describe()
    say("machine", f"{host['cpu']}, {host['cores']} cores")
    groups = by_items(bundles)
    tiled = groups["tiles"][0]
    report = earlier(output / "latency.json") if only else {}
    if only != "deep":
        report["bundles"] = about(host, parameters, quick=quick) | {
            "memory": memory(bundles, tiled, parameters),
            "overhead": overhead(bundles, tiled, parameters),
            "useful_work": useful_work(bundles, tiled, parameters),
            "pictures": [picture_latency(bundles, bundle, parameters) for bundle in groups["tiles"]],
            "samples": [sample_latency(bundles, bundle, parameters) for bundle in groups["samples"]],
            "fairness": fairness(bundles, tiled, parameters),
        }
    if only == "deep" or not (only or quick):
        bundle = deep_bundle(deep, halo=tiled.manifest.halo)
        duration = replace(parameters.duration, duration_s=max(DEEP_DURATION_S, duration_s))
        longer = replace(parameters, duration=duration)
        report["deep"] = about(host, longer, quick=False) | {
            "overhead": overhead(deep.parent, bundle, longer),
            "useful_work": useful_work(deep.parent, bundle, parameters, callers=1),
        }
    output.mkdir(parents=True, exist_ok=True)
    (output / "latency.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plots.latency(report, output / "latency.png")
    say("written", f"{output / 'latency.json'} and {output / 'latency.png'}")


def about(host: dict[str, object], parameters: LoadParameters, *, quick: bool) -> Report:
    return {"machine": host, "duration_s": parameters.duration.duration_s, "quick": quick}


def earlier(path: Path) -> Report:
    """The report of an earlier run; empty where there is none. Each half names the machine it was measured on."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    main()
