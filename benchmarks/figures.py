"""`python -m benchmarks.figures`: checks in a few minutes that the figures in the README and the model cards still hold.

Served throughput as a share of the engine's own, the server's memory, and PSNR of the shipped upscaler on Set5. Each is
printed beside its bound; the exit status is 1 if one is out of bounds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.latency import by_items
from benchmarks.load import Duration
from benchmarks.served import MEMORY_LIMIT_MIB, LoadParameters, memory, overhead, say
from export.checkpoints import checkpoint
from export.evaluation import restoration
from export.evaluation.subjects import Subject, open_bundle, open_checkpoint
from runtime.bundle import Bundle
from runtime.errors import GanforgeError

SERVED_OF_RAW = 0.9
POSTERS = 16
# PSNR Y on Set5, ×4, from the model card of export/models/esrgan, which rounds to 0.01 dB.
CARD_DB = {"esrgan": 31.08, "esrgan-gan": 29.08}
ROUNDING_DB = 0.01
# A bundle's float16 or bfloat16 answers lie at least 40 dB from float32's: on a 31 dB figure that is 0.5 dB at the very worst.
BUNDLE_DB = 0.5


@dataclass(frozen=True)
class Figure:
    """A measured figure and its bound. least: `value` must be at least `bound`; otherwise at most."""

    name: str
    value: float
    bound: float
    unit: str
    least: bool

    @property
    def holds(self) -> bool:
        return self.value >= self.bound if self.least else self.value <= self.bound


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--bundles", type=click.Path(exists=True, path_type=Path), default="bundles", show_default=True)
@click.option(
    "--set5",
    type=click.Path(exists=True, path_type=Path),
    help="Folder with HR/ and LR_bicubic/X4/, for PSNR.",
)
@click.option("--duration-s", type=float, default=10.0, show_default=True, help="Seconds of each loop.")
@click.option("--backend", default="auto", show_default=True)
@click.option(
    "--json", "target", type=click.Path(path_type=Path), help="Also write the figures to this file."
)
def main(bundles: Path, set5: Path | None, duration_s: float, backend: str, target: Path | None) -> None:
    """Measure what the README and the model cards state: served over raw, memory, PSNR of the shipped weights."""
    host = machine.describe()
    say("machine", f"{host['cpu']}, {host['cores']} cores")
    tiled = by_items(bundles)["tiles"][0]
    parameters = LoadParameters(
        Duration(duration_s), (1,), (1,), posters=POSTERS, arrivals=0, backend=backend
    )
    try:
        figures = [
            *served_figures(bundles, tiled, parameters),
            *(psnr_figures(set5, tiled) if set5 else ()),
        ]
    except GanforgeError as error:
        raise click.ClickException(str(error)) from error
    show(figures)
    if not set5:
        click.echo("PSNR was left out; --set5 FOLDER measures it")
    if target:
        report = {"machine": host, "figures": [asdict(figure) for figure in figures]}
        target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(not all(figure.holds for figure in figures))


def served_figures(folder: Path, bundle: Bundle, parameters: LoadParameters) -> Iterator[Figure]:
    """Served throughput as a share of the engine's own, and the server's memory above idle."""
    of_raw = overhead(folder, bundle, parameters)["of_raw"]
    yield Figure(f"{bundle.manifest.name} served, of raw", of_raw, SERVED_OF_RAW, "", least=True)
    above_mib = memory(folder, bundle, parameters)["peak_above_mib"]
    yield Figure(f"memory above idle, {POSTERS} posters", above_mib, MEMORY_LIMIT_MIB, "MiB", least=False)


def psnr_figures(set5: Path, bundle: Bundle) -> Iterator[Figure]:
    """PSNR Y on Set5 of the shipped weights in torch, and of the bundle through its engine."""
    for name, card_db in CARD_DB.items():
        subject = open_checkpoint(checkpoint.locate(f"{checkpoint.COMES_WITH}{name}"))
        yield Figure(
            f"shipped:{name} on Set5", psnr_y_db(set5, subject), card_db - ROUNDING_DB, "dB", least=True
        )
    weights = Path(bundle.manifest.weights.get("source", "")).stem
    if weights in CARD_DB:
        served = open_bundle(bundle.path)
        least_db = CARD_DB[weights] - BUNDLE_DB
        yield Figure(
            f"bundle {bundle.manifest.name} ({bundle.manifest.precision}) on Set5",
            psnr_y_db(set5, served),
            least_db,
            "dB",
            least=True,
        )


def psnr_y_db(set5: Path, subject: Subject) -> float:
    pictures = restoration.pairs(set5 / "HR", set5 / "LR_bicubic" / f"X{subject.scale}", subject)
    try:
        return restoration.mean(restoration.measure(subject, pictures)).psnr_y_db
    finally:
        subject.close()


def show(figures: list[Figure]) -> None:
    table = Table("figure", title="Stated figures", title_justify="left")
    for column in ("measured", "expected", ""):
        table.add_column(column, justify="right")
    for figure in figures:
        bound = f"{'≥' if figure.least else '≤'} {figure.bound:g} {figure.unit}".strip()
        measured = f"{figure.value:.2f} {figure.unit}".strip()
        table.add_row(figure.name, measured, bound, "holds" if figure.holds else "BROKEN")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
