"""The base installation in a bare environment outside the repository: small, and it calls a server from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.installing import (
    INSTALL_TIMEOUT_S,
    bare_environment,
    copy_of_source,
    needs_package_index,
    run,
    size_mb,
)
from tests.server.conftest import Served, decoded, expected, levels_apart, picture, png

# MB, of which gRPC takes 19, Pillow 22 and ganforge itself 8.
LARGEST_MB = 90


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_TIMEOUT_S)
def test_the_client_installs_alone_and_runs_beside_files_named_like_ours(
    served: Served, tmp_path: Path
) -> None:
    bin = bare_environment(tmp_path / "bare")
    needs_package_index(bin)
    source = copy_of_source(tmp_path / "source")
    installed = run(bin / "pip", "install", "-c", source / "constraints.txt", source, cwd=tmp_path)
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert size_mb(bin) < LARGEST_MB
    names = run(bin / "pip", "list", cwd=tmp_path).stdout
    assert [name for name in ("numpy", "openvino", "onnxruntime", "pyvips", "torch") if name in names] == []

    folder = tmp_path / "folder"
    (folder / "runtime").mkdir(parents=True)
    for name in ("server.py", "export.py", "protos.py", "grpc.py", "runtime/__init__.py"):
        (folder / name).write_text("raise SystemExit('a file of the working folder was imported')")
    (folder / "in.png").write_bytes(png(9, 8))
    address = ("--address", served.address)
    upscaled = run(bin / "ganforge", "upscale", "in.png", "out.png", *address, cwd=folder)
    assert upscaled.returncode == 0, upscaled.stdout + upscaled.stderr
    assert levels_apart(decoded((folder / "out.png").read_bytes()), expected(picture(9, 8))) <= 1
    grid = run(bin / "ganforge", "generate", "grid.png", "--grid", "--model", "plain", *address, cwd=folder)
    assert grid.returncode == 0, grid.stderr
    for words, extra in ((["serve", "--bundles", "."], "serve"), (["build", "--list"], "export")):
        refused = run(bin / "ganforge", *words, cwd=folder)
        assert refused.returncode == 1
        assert f"pip install 'ganforge[{extra}]'" in refused.stderr
