"""`ganforge keygen`, `ganforge sign` and `python -m server --trust`: from a key to a server that takes signed bundles only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.bundle import discover
from runtime.errors import BundleError
from runtime.signing import Trust
from server.cli import main
from server.client import Client
from server.launch import launched
from server.models.models import Models
from server.models.reloading import Reloader
from tests.server.bundles import write_generator, write_upscaler
from tests.server.conftest import png

ROOT = Path(__file__).resolve().parents[3]


def ganforge(*words: object) -> str:
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_server_with_trust_takes_signed_bundles_only(tmp_path: Path) -> None:
    bundles, key = tmp_path / "bundles", tmp_path / "release"
    write_upscaler(bundles)
    ganforge("keygen", key)
    trust = ("--trust", f"{key}.pub")
    refused = subprocess.run(
        [sys.executable, "-m", "server", "--bundles", str(bundles), "--port", "0", *trust],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert "it is not signed; expected a signature by release.pub (SHA256:" in refused.stderr.splitlines()[-1]
    assert "upscaler, version" in ganforge("sign", bundles / "upscaler", "--key", key)
    with launched(bundles, log=tmp_path / "log", flags=trust) as server, Client(server.address) as client:
        assert client.upscale(png(5, 4)).width == 20
    with launched(bundles, log=tmp_path / "log") as server, Client(server.address) as client:
        assert client.upscale(png(5, 4)).width == 20  # and so does one that trusts everybody


def test_an_altered_bundle_is_not_signed(tmp_path: Path) -> None:
    write_upscaler(tmp_path)
    ganforge("keygen", tmp_path / "key")
    graph = tmp_path / "upscaler" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"x")
    done = CliRunner().invoke(main, ["sign", str(tmp_path / "upscaler"), "--key", str(tmp_path / "key")])
    assert (done.exit_code, "model.onnx was altered" in done.output) == (1, True)
    assert not (tmp_path / "upscaler" / "manifest.json.sig").exists()


@pytest.fixture
def trusted(tmp_path: Path) -> Trust:
    """A folder of bundles with a signed generator, and the key."""
    write_generator(tmp_path / "bundles")
    ganforge("keygen", tmp_path / "key")
    ganforge("sign", tmp_path / "bundles" / "generator", "--key", tmp_path / "key")
    return Trust([tmp_path / "key.pub"])


def test_a_reload_refuses_bundles_that_are_not_signed(tmp_path: Path, trusted: Trust) -> None:
    """A new one, and one that replaces a signed one: that stays."""
    folder = tmp_path / "bundles"
    models = Models.open(discover(folder, trusted), trust=trusted)
    try:
        reloader, before = Reloader(models, folder), models.catalog.entries["generator"].version
        write_upscaler(folder)
        write_generator(folder, classes=5)
        refused = {change.name: change.reason for change in reloader.reload().refused}
        assert set(refused) == {"upscaler", "generator"}
        assert all(
            "it is not signed; expected a signature by key.pub" in reason for reason in refused.values()
        )
        assert {entry.name: entry.version for entry in models.catalog.entries.values()} == {
            "generator": before
        }
        for name in refused:
            ganforge("sign", folder / name, "--key", tmp_path / "key")
        done = reloader.reload()
        assert [change.name for change in (*done.added, *done.replaced)] == ["upscaler", "generator"]
    finally:
        models.close()


async def test_a_model_that_is_opened_late_is_checked_again(tmp_path: Path, trusted: Trust) -> None:
    folder = tmp_path / "bundles"
    models = Models.open(discover(folder, trusted), trust=trusted, lazy=True)
    try:
        (folder / "generator" / "manifest.json.sig").unlink()
        with pytest.raises(BundleError, match="it is not signed"):
            async with models.using("generate", ""):
                pass
    finally:
        models.close()
