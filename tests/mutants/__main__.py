"""Do the tests notice? `python -m tests.mutants` applies each deliberate fault of tests/mutants/*.toml and expects failure.

It starts pytest once a fault, some 5 to 20 s each, so that the whole list takes half an hour on two cores: `--room training`
or `--only EMA` takes a part of it. `make mutants` runs everything. Exit status 1: a fault was not noticed, or an entry is
broken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.mutants.faults import ROOT, Fault, StaleFault, read
from tests.mutants.runner import Result, check

COLOURS = {"caught": "green", "survived": "red", "broken": "yellow"}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--only", metavar="TEXT", default="", help="Faults whose name or file has this in it.")
@click.option("--room", metavar="NAME", help="Faults of tests/mutants/NAME.toml.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=min(os.cpu_count() or 1, 8),
    show_default="one a core, 8 at most",
    help="Faults to try at a time.",
)
@click.option(
    "--timeout-s", type=click.IntRange(min=1), default=120, show_default=True, help="Limit of one test."
)
def main(only: str, room: str | None, jobs: int, timeout_s: int) -> None:
    """Apply each deliberate fault to a copy of the source and check that its tests fail. The working tree is not touched."""
    try:
        faults = selected(read(), only, room)
    except StaleFault as error:
        raise click.ClickException(str(error)) from error
    if not faults:
        raise click.ClickException("no fault is chosen by these options")
    console = Console(soft_wrap=not sys.stdout.isatty())
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("deliberate faults", total=sum(not fault.equivalent for fault in faults))

            def show(result: Result) -> None:
                bar.advance(task)
                console.print(line(result))

            results = check(
                faults, ROOT, jobs=jobs, timeout_s=timeout_s, on_step=console.print, on_result=show
            )
    except StaleFault as error:
        raise click.ClickException(str(error)) from error
    console.print(summary(faults, results))
    missed = [result for result in results if result.verdict != "caught"]
    for result in missed:
        console.print(f"{line(result)}\n  {escape(result.fault.file)}: {escape(result.why)}")
    sys.exit(bool(missed))


def selected(faults: Sequence[Fault], only: str, room: str | None) -> list[Fault]:
    return [
        fault
        for fault in faults
        if room in (None, fault.room) and (only.lower() in fault.name.lower() or only in fault.file)
    ]


def line(result: Result) -> str:
    """One line about `result`, in rich's markup."""
    colour = COLOURS[result.verdict]
    by = f" by {result.why}" if result.verdict == "caught" else ""
    return f"[{colour}]{result.verdict}[/] {escape(result.fault.room)}: {escape(result.fault.name + by)}"


def summary(faults: Sequence[Fault], results: Sequence[Result]) -> Table:
    """A row a room: how many faults it has, and what came of them."""
    table = Table("room", title="Deliberate faults")
    for column in ("faults", "caught", "survived", "broken", "change nothing"):
        table.add_column(column, justify="right")
    for room in (*sorted({fault.room for fault in faults}), "all"):
        of_room = [result for result in results if room in ("all", result.fault.room)]
        equivalent = sum(bool(fault.equivalent) for fault in faults if room in ("all", fault.room))
        counts = [
            sum(result.verdict == verdict for result in of_room)
            for verdict in ("caught", "survived", "broken")
        ]
        table.add_row(room, *map(str, (len(of_room) + equivalent, *counts, equivalent)))
    return table


if __name__ == "__main__":
    main()
