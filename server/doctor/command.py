"""The command `ganforge doctor`. It takes the flags of `ganforge serve` and checks what a server with them would find."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from server.doctor import machine, software
from server.doctor.finding import Finding
from server.machine import resources

if TYPE_CHECKING:
    from server.options import Settings

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
        "ignore_unknown_options": True,
    }
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a list of JSON objects.")
@click.argument("flags_of_serve", nargs=-1, type=click.UNPROCESSED)
def main(as_json: bool, flags_of_serve: tuple[str, ...]) -> None:
    """Say what this machine has and whether a server would work here.

    FLAGS_OF_SERVE are those of ganforge serve, such as --bundles DIR or --config FILE; its environment variables count too.
    Each bundle is opened and warmed up as the server does it. Exits with 1 if a server could not work.
    """
    findings = []
    for finding in findings_of(flags_of_serve):
        findings.append(finding)
        if not as_json:
            _show(finding, first=len(findings) == 1 or findings[-2].section != finding.section)
    counts = Counter(finding.status for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        verdict = "A server cannot work here." if counts["error"] else "A server would work here."
        click.echo(f"\n{verdict} Errors: {counts['error']}, warnings: {counts['warning']}.")
    if counts["error"]:
        sys.exit(1)


def findings_of(flags: tuple[str, ...]) -> Iterator[Finding]:
    """Everything that is checked. flags: of `ganforge serve`. Raises click.UsageError if they are wrong."""
    yield from machine.check()
    yield from software.check()
    try:
        from server.doctor import limits, models, protection
    except ImportError as error:
        text = f"cannot be imported ({error}): pip install 'ganforge[serve]'"
        yield Finding("software", "serve extra", text, "error")
        return
    settings = _settings(flags)
    yield from models.check_pictures()
    yield from models.check_backends()
    if settings is None:
        yield Finding("bundles", "none", "no folder was named; --bundles DIR checks one", "warning")
        return
    yield from protection.check(settings)
    yield from models.check_bundles(settings.models, settings.security)
    yield from limits.check(
        settings.limits,
        limits.Machine(resources.memory_bytes(), resources.temporary_bytes(), resources.open_files()),
    )


def _settings(flags: tuple[str, ...]) -> Settings | None:
    """The settings of a server with these flags; None if they name no bundles."""
    from server.__main__ import main as serve
    from server.options import Settings

    try:
        with serve.make_context("ganforge serve", list(flags)) as context:
            return Settings.of(context.params)
    except click.MissingParameter:
        return None


def _show(finding: Finding, *, first: bool) -> None:
    if first:
        click.secho(f"\n{finding.section}", bold=True)
    status = click.style(f"{finding.status:<8}", fg=COLOURS[finding.status])
    click.echo(f"  {status} {finding.name:<22} {finding.text}")
