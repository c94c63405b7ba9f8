"""`python -m tests.chaos`: every trouble for every call, alone and among others, with what must happen. `make chaos` calls it.

Real servers with small models, real clients, in processes of their own where they are killed. Prints a table, and writes it
to build/chaos.md and build/chaos.json. Exits with 1 if anything differs from tests/chaos/expectations.py.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.chaos.cells import ALL, Cell, Result, Runner
from tests.chaos.expectations import CALLS, EXPECTATIONS, LOADS
from tests.chaos.servers import scratch, write_bundles

OUTPUT = Path("build")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--quick", is_flag=True, help="Every cell once, in order (the default).")
@click.option(
    "--minutes", type=click.FloatRange(min=0), default=0.0, help="Go on in random orders for so long."
)
@click.option("--only", multiple=True, help="Cells with this text in their name, such as 'cancel, Upscale'.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of random moments and orders.")
def main(quick: bool, minutes: float, only: tuple[str, ...], seed: int) -> None:
    """Bring trouble to servers and check what is promised."""
    if quick and minutes:
        raise click.UsageError("--quick and --minutes exclude each other")
    cells = [cell for cell in ALL if not only or any(text in str(cell) for text in only)]
    if not cells:
        raise click.UsageError(f"--only: no cell has {' or '.join(only)} in its name, such as {ALL[0]}")
    console, results = Console(), []
    with scratch() as folder:
        bundles = Path(folder) / "bundles"
        write_bundles(bundles)
        runner = Runner(bundles, Path(folder), seed)
        try:
            for cell in _order(cells, minutes, seed):
                results.append(runner.run(cell))
                _show_problems(console, results[-1])
        finally:
            runner.close()
    console.print(table(results))
    write(results)
    bad = [result for result in results if result.problems]
    seconds = sum(result.seconds for result in results)
    console.print(
        f"{len(results)} runs in {seconds:.0f} s: {len(results) - len(bad)} as promised, {len(bad)} not."
    )
    sys.exit(1 if bad else 0)


def _order(cells: list[Cell], minutes: float, seed: int) -> Iterator[Cell]:
    """Each cell once; then, until the minutes are over, all of them again in random orders."""
    until, shuffle = time.monotonic() + minutes * 60, random.Random(seed)
    yield from cells
    while time.monotonic() < until:
        order = list(cells)
        shuffle.shuffle(order)
        for cell in order:
            if time.monotonic() > until:
                return
            yield cell


def _show_problems(console: Console, result: Result) -> None:
    if result.skipped:
        console.print(f"[yellow]skipped[/] {result.cell}: {result.skipped}", highlight=False)
    for problem in result.problems:
        console.print(f"[red]differs[/] {result.cell}: {problem}", highlight=False)


def summary(results: list[Result]) -> list[list[str]]:
    """A row for each trouble: a cell for each call and load, and the promise."""
    rows = []
    for trouble, expected in EXPECTATIONS.items():
        cells = [Cell(trouble, call, load) for call in CALLS for load in LOADS]
        marks = [_mark([each for each in results if each.cell == cell]) for cell in cells]
        rows.append([trouble, *marks, expected.sentence])
    return rows


def _mark(runs: list[Result]) -> str:
    bad = sum(bool(run.problems) for run in runs)
    ran = sum(not run.skipped for run in runs)
    if not ran:
        return "skipped" if runs else "–"
    many = f" {ran - bad}/{ran}" if ran > 1 else ""
    return ("differs" if bad else "ok") + many


def table(results: list[Result]) -> Table:
    """The results for a terminal: a column for each call, quiet and loaded."""
    shown = Table("trouble", *CALLS, caption=" and ".join(LOADS))
    for trouble, *marks, _ in summary(results):
        if set(marks) != {"–"}:
            pairs = zip(marks[::2], marks[1::2], strict=True)
            shown.add_row(trouble, *(" ".join(map(_coloured, pair)) for pair in pairs))
    return shown


def _coloured(mark: str) -> str:
    return f"[{'red' if mark.startswith('differs') else 'green'}]{mark}[/]"


def write(results: list[Result]) -> None:
    """build/chaos.md and build/chaos.json."""
    OUTPUT.mkdir(exist_ok=True)
    heads = ["trouble", *(f"{call}, {load}" for call in CALLS for load in LOADS), "promise"]
    lines = [heads, ["---"] * len(heads), *summary(results)]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    problems = "".join(f"- {result.cell}: {problem}\n" for result in results for problem in result.problems)
    (OUTPUT / "chaos.md").write_text(text + ("\n" + problems if problems else ""), encoding="utf-8")
    records = [asdict(result) for result in results]
    (OUTPUT / "chaos.json").write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
