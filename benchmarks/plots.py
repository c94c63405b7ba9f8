"""The measurements as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # the backend is chosen first


def latency(report: dict[str, Any], path: Path) -> None:
    """Percentiles by concurrency, and the served share of the raw engine's throughput."""
    generators = report["generate"]
    figure, axes = plt.subplots(
        1, 2 + len(generators), figsize=(5 * (2 + len(generators)), 4), layout="constrained"
    )
    _percentiles(axes[0], report["upscale"], "Upscale, 256×256")
    for axis, one in zip(axes[1:], generators, strict=False):
        most = max(row["count"] for row in one["rows"])
        rows = [row for row in one["rows"] if row["count"] == most]
        _percentiles(axis, rows, f"Generate, {one['model']}, {most} samples")
    _shares(axes[-1], report)
    figure.suptitle(f"Through the server, on {report['machine']['cpu']}, {report['machine']['cores']} cores")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _percentiles(axis: Any, rows: list[dict[str, Any]], title: str) -> None:
    callers = [row["callers"] for row in rows]
    for key in ("p50_ms", "p90_ms", "p99_ms"):
        axis.plot(callers, [row[key] for row in rows], marker="o", label=key.removesuffix("_ms"))
    axis.set(title=title, xlabel="callers at once", ylabel="ms", ylim=(0, None), xticks=callers)
    axis.legend()


def _shares(axis: Any, report: dict[str, Any]) -> None:
    bars = {f"{one['model']}\ntiles, of raw": one["of_raw"] for one in report["overhead"]}
    bars |= {f"{one['model']}\ntiles, of allowed": one["of_allowed"] for one in report["overhead"]}
    bars |= {f"{one['model']}\n1000×700, of whole": one["ratio"] for one in report["useful_work"]}
    drawn = axis.barh(list(bars), list(bars.values()))
    axis.bar_label(drawn, fmt="%.2f", padding=3)
    axis.axvline(1.0, color="grey", linewidth=1)
    axis.set(title="Served share of the bare engine", xlim=(0, 1.25 * max(1.0, *bars.values())))
    axis.invert_yaxis()
