"""Plots the report of benchmarks.gpu, which imports this only where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def shares(report: dict[str, Any], path: Path) -> None:
    """Write a PNG to `path`: each path's share of the matrix ceiling, one panel a case. report: as in gpu.json."""
    results = report["results"]
    panels = list(dict.fromkeys((row["model"], row["case"]) for row in results))
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(9, 1 + 2.2 * len(panels)), layout="constrained", squeeze=False, sharex=True
    )
    for axis, (model, case) in zip(axes[:, 0], panels, strict=True):
        rows = [row for row in results if (row["model"], row["case"]) == (model, case)]
        bars = axis.barh([row["path"] for row in rows], [100 * row["of_ceiling"] for row in rows])
        labels = [f"{row['tflops']:.3g} TFLOP/s, {row['items_per_s']:.4g}/s" for row in rows]
        axis.bar_label(bars, labels, padding=3)
        axis.set(title=f"{model}, {case}")
        axis.invert_yaxis()
        axis.margins(x=0.35)
    axes[-1, 0].set_xlabel("% of the measured matrix ceiling")
    ceiling = f"{report['matrix_ceiling_tflops']:.3g} TFLOP/s"
    figure.suptitle(f"{report['machine']['device']}, {report['precision']}, ceiling {ceiling}")
    figure.savefig(path, dpi=110)
    plt.close(figure)
