"""Tests of the model cards: each shipped file of weights is in one, links lead to files, commands take their options."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest
import safetensors
from click.testing import CliRunner

from export import families
from export.checkpoints.checkpoint import COMES_WITH, SHIPPED

MODELS = families.FOLDER
CARDS = sorted(MODELS.glob("*/*.md"))


def commands(card: Path) -> list[list[str]]:
    """The words of each command in a card's shell blocks, a trailing backslash joining lines."""
    blocks = re.findall(r"^```bash\n(.*?)^```", card.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def click_command(module: str) -> click.Command:
    for name in (f"{module}.command", f"{module}.__main__", module):
        try:
            main = getattr(importlib.import_module(name), "main", None)
        except ModuleNotFoundError:
            continue
        if isinstance(main, click.Command):
            return main
    raise AssertionError(f"python -m {module} has no command line")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_shipped_weights_are_in_their_familys_card(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        model = file.metadata()["model"]
    assert f"## {COMES_WITH}{path.stem}\n" in (MODELS / model / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_links_lead_to_files_that_are_there(card: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", card.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if "://" not in link and not (card.parent / link).exists()] == []


@pytest.mark.parametrize(
    "words", [words for card in CARDS for words in commands(card)], ids=lambda words: " ".join(words[2:])[:60]
)
def test_commands_in_the_cards_take_their_options(words: list[str]) -> None:
    assert words[:2] == ["python", "-m"]
    result = CliRunner().invoke(click_command(words[2]), [*words[3:], "--help"])
    assert result.exit_code == 0, result.output
