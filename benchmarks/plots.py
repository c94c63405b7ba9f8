"""Plots the reports of the latency, training, encoding, upscaler and soak benchmarks as PNG; those commands call it."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first


def latency(report: dict[str, Any], path: Path) -> None:
    """Latency percentiles by concurrency, and the served throughput as a share of the engine's own."""
    halves = [report[half] for half in ("bundles", "deep") if half in report]
    panels = [
        (f"{model['model']}, 256×256", model["rows"]) for half in halves for model in half.get("pictures", [])
    ]
    for model in (model for half in halves for model in half.get("samples", [])):
        most = max(row["count"] for row in model["rows"])
        rows = [row for row in model["rows"] if row["count"] == most]
        panels.append((f"{model['model']}, {most} samples", rows))
    columns = 1 + len(panels)
    figure, axes = plt.subplots(1, columns, figsize=(5 * columns, 4), layout="constrained", squeeze=False)
    for axis, (title, rows) in zip(axes[0], panels, strict=False):
        _percentiles(axis, rows, title)
    _shares(axes[0][-1], halves)
    machine = halves[0]["machine"]
    figure.suptitle(f"Through the server, on {machine['cpu']}, {machine['cores']} cores")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def training(report: dict[str, Any], path: Path) -> None:
    """The speed of each recipe's loop as a share of the plain loop's."""
    rows = report["recipes"]
    figure, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
    bars = axis.barh([f"{row['model']} {row['recipe']}" for row in rows], [row["ratio"] for row in rows])
    axis.bar_label(bars, fmt="%.3f", padding=3)
    axis.axvline(1.0, color="grey", linewidth=1)
    axis.set(
        title="Training throughput against a plain loop", xlim=(0, 1.2 * max(row["ratio"] for row in rows))
    )
    axis.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def encoding(report: dict[str, Any], path: Path) -> None:
    """The speed of each format and level on one thread, beside the speed at which the model computes pixels."""
    rows = report["rows"]
    figure, axis = plt.subplots(figsize=(7, 4.5), layout="constrained")
    bars = axis.barh([row["name"] for row in rows], [row["mpx_per_s"] for row in rows])
    axis.bar_label(bars, [f"{row['bytes_per_px']:.2f} bytes a pixel" for row in rows], padding=3)
    axis.axvline(report["model"]["mpx_per_s"], color="grey", label=f"computed by {report['model']['name']}")
    axis.set(
        title="Encoding on one core",
        xlabel="million pixels a second",
        xlim=(0, 1.3 * max(row["mpx_per_s"] for row in rows)),
    )
    axis.legend()
    axis.invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def soak(report: dict[str, Any], path: Path) -> None:
    """The server's memory, open files and threads, and the latency of thumbnails, over the minutes of a soak."""
    rows = report["samples"]
    minutes = [row["minute"] for row in rows]
    panels = (
        ("Memory", "MiB", {"rss_mib": "resident"}),
        ("Files and threads", "", {"files": "open files", "threads": "threads"}),
        ("Thumbnails beside the load", "ms", {"p50_ms": "p50", "p99_ms": "p99"}),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(15, 4), layout="constrained")
    for axis, (title, unit, lines) in zip(axes, panels, strict=True):
        for key, label in lines.items():
            axis.plot(minutes, [float("nan") if row[key] is None else row[key] for row in rows], label=label)
        axis.set(title=title, xlabel="minutes", ylabel=unit, ylim=(0, None))
        axis.legend()
    machine = report["machine"]
    figure.suptitle(
        f"{report['minutes']:g} minutes of mixed clients on {machine['cpu']}, {machine['cores']} cores"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def upscalers(report: dict[str, Any], path: Path) -> None:
    """The speed of each upscaler: the median of its turns, with the fastest and the slowest."""
    rows = report["rows"]
    figure, axis = plt.subplots(figsize=(7, 1.2 + 0.7 * len(rows)), layout="constrained")
    speeds = [statistics.median(row["output_mpx_per_s"]) for row in rows]
    spread = [
        [speed - min(row["output_mpx_per_s"]) for speed, row in zip(speeds, rows, strict=True)],
        [max(row["output_mpx_per_s"]) - speed for speed, row in zip(speeds, rows, strict=True)],
    ]
    bars = axis.barh([row["name"] for row in rows], speeds, xerr=spread, ecolor="grey")
    labels = [
        f"{row['median_times_as_fast']:g}×, {row['mmac_per_input_px']:.2f} MMAC a pixel" for row in rows
    ]
    axis.bar_label(bars, labels, padding=8)
    axis.set(xlabel="million output pixels a second", xlim=(0, 1.6 * max(speeds)))
    axis.invert_yaxis()
    machine = report["machine"]
    figure.suptitle(f"{report['picture_px']} px a side ×4 on {machine['cpu']}, {machine['cores']} cores")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _percentiles(axis: Any, rows: list[dict[str, Any]], title: str) -> None:
    callers = [row["callers"] for row in rows]
    for key in ("p50_ms", "p90_ms", "p99_ms"):
        # A percentile of too few answers is null in the report: matplotlib leaves NaN out.
        values = [float("nan") if row[key] is None else row[key] for row in rows]
        axis.plot(callers, values, marker="o", label=key.removesuffix("_ms"))
    axis.set(title=title, xlabel="callers at once", ylabel="ms", ylim=(0, None), xticks=callers)
    axis.legend()


def _shares(axis: Any, halves: list[dict[str, Any]]) -> None:
    shares: dict[str, float] = {}
    for overhead, useful in ((half["overhead"], half["useful_work"]) for half in halves):
        shares[f"{overhead['model']}\ntiles, of raw"] = overhead["of_raw"]
        shares[f"{overhead['model']}\ntiles, of allowed"] = overhead["of_allowed"]
        shares[f"{useful['model']}\n1000×700, of whole"] = useful["ratio"]
    bars = axis.barh(list(shares), list(shares.values()))
    axis.bar_label(bars, fmt="%.2f", padding=3)
    axis.axvline(1.0, color="grey", linewidth=1)
    axis.set(title="Served share of the bare engine", xlim=(0, 1.25 * max(1.0, *shares.values())))
    axis.invert_yaxis()
