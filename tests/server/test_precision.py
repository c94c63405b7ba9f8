"""The flag --min-precision, through a server process, on an imitated CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.tensors import Precision
from server.client import Client
from server.launch import launched
from tests.runtime import graphs
from tests.runtime.cpus import executes
from tests.server.conftest import png


@pytest.mark.parametrize(
    ("flags", "chosen"), [((), "float32"), (("--min-precision", "bfloat16"), "bfloat16")]
)
def test_a_float16_bundle_runs_in_bfloat16_only_where_the_operator_allows_it(
    flags: tuple[str, ...], chosen: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANFORGE_IMITATE_CPU", "amx")
    folder = tmp_path / "bundles"
    graphs.write_bundle(folder, graphs.upscaler("float16"), graphs.upscale_manifest("float16"))
    device = ("--device", "CPU")
    with (
        launched(folder, log=tmp_path / "server.log", flags=(*device, *flags)) as server,
        Client(server.address) as client,
    ):
        assert client.upscale(png(20, 20)).timing.precision == executes(chosen)
        assert client.models()[0].precision == executes(chosen)


def test_an_unknown_precision_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "--bundles", str(tmp_path), "--min-precision", "bf16"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'bf16' is not one of 'float32', 'float16', 'bfloat16', 'int8'" in done.stderr
