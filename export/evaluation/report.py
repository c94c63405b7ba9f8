"""Shows the figures of an evaluation as tables on the console (measures.py), and writes them as JSON (evaluate.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export.evaluation import restoration
from export.evaluation.inception import InceptionFigures
from export.evaluation.restoration import Quality
from export.evaluation.sampling import Figures
from runtime.files import write_text

QUALITY_HEADS = {
    "psnr_y_db": "PSNR Y, dB",
    "ssim_y": "SSIM Y",
    "psnr_rgb_db": "PSNR RGB, dB",
    "ssim_rgb": "SSIM RGB",
    "perceptual": "perceptual",
}
DECIMALS = {"psnr_y_db": 2, "psnr_rgb_db": 2}


def qualities_table(qualities: Mapping[str, Quality], title: str) -> Table:
    """A table with one row a picture, and their mean."""
    shown = restoration.measured(qualities)
    table = numbers(["picture", *(QUALITY_HEADS[name] for name in shown)], title)
    for picture, quality in qualities.items():
        table.add_row(picture, *(f"{getattr(quality, name):.{DECIMALS.get(name, 4)}f}" for name in shown))
    mean = restoration.mean(qualities)
    table.add_section()
    table.add_row("mean", *(f"{getattr(mean, name):.{DECIMALS.get(name, 4)}f}" for name in shown))
    return table


def figures_table(
    rows: Mapping[str, Figures], inception: Mapping[str, InceptionFigures], title: str
) -> Table:
    """A table with one row for each set of pictures, by its name. inception: of the sets for which it was computed."""
    heads = [
        "pictures",
        "count",
        "Fréchet",
        "KID × 1000",
        "nearest",
        "closest 1 %",
        "least class",
        "agreement",
    ]
    heads += ["diversity", *(["FID", "Inception Score"] if inception else [])]
    table = numbers(heads, title)
    for name, figures in rows.items():
        cells = [
            str(figures.count),
            f"{figures.frechet:.3f}",
            f"{1e3 * figures.kernel:.2f} ± {1e3 * figures.kernel_std:.2f}",
            f"{figures.nearest:.3f}",
            f"{figures.nearest_closest:.3f}",
            percent(figures.least_share),
            percent(figures.agreement),
            ratio(figures.diversity),
        ]
        if inception:
            standard = inception.get(name)
            cells += (
                [f"{standard.fid:.2f}", f"{standard.score:.2f} ± {standard.score_std:.2f}"]
                if standard
                else ["", ""]
            )
        table.add_row(name, *cells)
    return table


def class_tables(rows: Mapping[str, Figures], class_names: Sequence[str]) -> list[Table]:
    """Tables of shares, agreement and diversity by class: one row a class, one column for each set that has the figure."""
    tables = []
    for title, name, as_text in (
        ("Share of each class", "shares", percent),
        ("Agreement with the label", "agreement_by_class", percent),
        ("Diversity, over that of real pictures", "diversity_by_class", ratio),
    ):
        sets = {
            row: values for row, figures in rows.items() if (values := getattr(figures, name)) is not None
        }
        table = numbers(["class", *sets], title)
        for number, class_name in enumerate(class_names):
            table.add_row(class_name, *(as_text(values[number]) for values in sets.values()))
        tables += [table] if sets else []
    return tables


def numbers(heads: Sequence[str], title: str) -> Table:
    """An empty table whose first column is for text and whose others are for figures."""
    table = Table(title=title, title_justify="left")
    table.add_column(heads[0])
    for head in heads[1:]:
        table.add_column(head, justify="right")
    return table


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def show(*tables: Table) -> None:
    """Print the tables; as wide as they need to be if the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(Console(width=1000).measure(table).maximum for table in tables))
    for table in tables:
        console.print(table)


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write the report as JSON, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")
