"""`ganforge keygen`, `ganforge sign` and `python -m server --trust`: from a key to a server that takes signed bundles only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.bundle import load
from runtime.errors import BundleError
from runtime.signing import Trust
from server.cli import main
from server.client import Client
from server.launch import launched
from server.models import Models
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


def test_bundles_that_are_read_later_are_checked_too(tmp_path: Path) -> None:
    """By a reload, and by a server with --lazy."""
    write_generator(tmp_path / "bundles")
    ganforge("keygen", tmp_path / "key")
    trust = Trust([tmp_path / "key.pub"])
    ganforge("sign", tmp_path / "bundles" / "generator", "--key", tmp_path / "key")
    models = Models.open([load(tmp_path / "bundles" / "generator", trust)], trust=trust)
    try:
        write_upscaler(tmp_path / "bundles")
        with pytest.raises(BundleError, match="it is not signed"):
            models.load(tmp_path / "bundles" / "upscaler")
    finally:
        models.close()
