"""The commands of docs/security.md, run in the page's order: what it shows works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.launch import launched
from server.security.options import SECURITY
from tests.server.bundles import write_upscaler

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SERVE = ["ganforge", "serve", "--bundles", "bundles"]


def blocks() -> Iterator[str]:
    yield from re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_the_commands_of_the_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_upscaler(tmp_path / "bundles")
    command = tmp_path / "bin" / "ganforge"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m server.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    shown = []
    with ExitStack() as running:
        for number, block in enumerate(blocks()):
            words = block.split()
            if words[: len(SERVE)] != SERVE:
                done = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", block], capture_output=True, text=True, timeout=100
                )
                assert done.returncode == 0, block + done.stdout + done.stderr
                shown.append(done.stdout)
                continue
            running.close()
            server = running.enter_context(
                launched(Path("bundles"), log=tmp_path / f"{number}.log", flags=words[len(SERVE) :])
            )
            monkeypatch.setenv("GANFORGE_ADDRESS", "127.0.0.1:" + server.address.rpartition(":")[2])
    assert sum("upscaler" in output for output in shown) >= 4
    assert "is serving" in "".join(shown)
    assert "Verified Successfully" in shown[-1]


def test_every_flag_of_the_group_is_on_the_page() -> None:
    for option in SECURITY.options:
        assert any(flag in PAGE for flag in (*option.opts, *option.secondary_opts))
