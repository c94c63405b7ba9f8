"""Tests of export/models/README.md: it lists every family, all code bases whose files load, and the costs as counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from export import families
from export.checkpoints import checkpoint
from export.checkpoints.identification import namings
from export.inspect.__main__ import main as inspect
from export.inspect.cost import count

TABLES = (families.FOLDER / "README.md").read_text(encoding="utf-8").split("## Cost")


def rows(text: str) -> Iterator[list[str]]:
    """The cells of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:])


LOADS, COSTS = (list(rows(text)) for text in TABLES)


def test_every_family_is_listed_with_all_code_bases_whose_files_load() -> None:
    expected = [
        [f"[{name}]({name}/README.md)", families.get(name).task, "; ".join(code_bases(name))]
        for name in families.names()
    ]
    assert expected == LOADS


def code_bases(family: str) -> list[str]:
    """Each once: one with several networks may have several namings."""
    return list(dict.fromkeys(naming.name for naming in namings(family)))


@pytest.mark.parametrize("row", COSTS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_costs_are_as_counted(row: list[str]) -> None:
    family, settings, _, *stated = row
    spec = families.get(family)
    config = checkpoint.configure(spec.config(), dict(pair.split("=") for pair in settings.split()))
    cost = count(spec, config, checkpoint.outline(spec, config))
    assert [f"{cost.parameters:,}", f"{cost.mmac:.2f}", cost.per] == stated


def test_every_family_has_a_cost() -> None:
    assert {row[0] for row in COSTS} == set(families.names())


def test_inspect_says_what_shipped_weights_cost() -> None:
    for row in COSTS:
        shipped = re.fullmatch(r"`(shipped:[\w-]+)`", row[2])
        if shipped:
            result = CliRunner().invoke(inspect, [shipped[1]])
            assert {f"parameters:    {row[3]}", f"cost:          {row[4]} MMAC per {row[5]}"} <= set(
                result.output.splitlines()
            )
