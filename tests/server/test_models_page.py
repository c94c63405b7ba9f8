"""docs/models.md names flags, commands and metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from server.__main__ import main
from server.cli import SUBCOMMANDS
from server.models import memory

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_every_flag_and_command_of_the_page_exists() -> None:
    flags = set(re.findall(r"`(--[a-z-]+)`", PAGE))
    assert flags >= {"--watch", "--lazy", "--max-models-bytes"}
    shown = CliRunner().invoke(main, ["--help"]).output
    assert [flag for flag in flags if f"  {flag}" not in shown] == []
    commands = set(re.findall(r"^ganforge (\w+)|`ganforge (\w+)", PAGE, re.MULTILINE))
    assert {first or second for first, second in commands} <= SUBCOMMANDS.keys()


def test_the_pages_estimate_is_the_servers() -> None:
    assert (memory.ACTIVATIONS_BYTES, memory.RESERVE_BYTES) == (64 * 2**20, 64 * 2**20)
    assert (memory.BYTES_PER_FILE_BYTE, memory.BYTES_PER_FILE_BYTE * memory.WIDENED) == (6, 12)
    assert "64 MiB and six times its weights, twelve times for those of float16" in " ".join(PAGE.split())


def test_every_metric_of_the_page_exists() -> None:
    source = (ROOT / "server" / "monitoring" / "parts.py").read_text(encoding="utf-8")
    for name in re.findall(r"`(ganforge_[a-z_]+)`", PAGE):
        assert f'"{name.removesuffix("_total")}"' in source, name
