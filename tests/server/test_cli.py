"""The command `ganforge`: has every subcommand, imports only what it runs, and names a missing extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.errors import BackendUnavailable
from server.cli import SUBCOMMANDS, main
from server.launch import launched

ROOT = Path(__file__).resolve().parents[2]
NUMPY_AND_ENGINES = ("numpy", "pyvips", "openvino", "onnxruntime", "structlog")
# Importable nowhere in the process: what an extra brings.
WITHOUT = {"serve": NUMPY_AND_ENGINES, "export": ("torch", "onnx", "safetensors", "lightning_fabric")}


def ganforge(
    *words: str, without: tuple[str, ...] = (), cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """`ganforge WORDS` in a process of its own, started as an installed script is: without the working folder's files."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({without!r})); sys.path.insert(0, {str(ROOT)!r}); "
        "from server.cli import main; main(prog_name='ganforge')"
    )
    command = [sys.executable, "-P", "-c", code, *words]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100
    )


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder with files that are named like our packages, and that end the process that imports them."""
    (tmp_path / "runtime").mkdir()
    for name in ("server.py", "export.py", "protos.py", "runtime/__init__.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the working folder was imported')")
    return tmp_path


def test_the_subcommands_are_those_of_the_project() -> None:
    names = "build inspect convert interpolate stylize train evaluate serve doctor token keygen sign "
    names += "upscale translate generate models reload health"
    shown = CliRunner().invoke(main, ["--help"]).output
    assert list(SUBCOMMANDS) == names.split()
    for name, subcommand in SUBCOMMANDS.items():
        assert f"  {name} " in shown
        assert subcommand.help in shown


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_subcommand_shows_its_help(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"], prog_name="ganforge")
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(f"Usage: ganforge {name} ")


@pytest.mark.parametrize("name", [name for name, each in SUBCOMMANDS.items() if each.extra == "client"])
def test_the_clients_subcommands_import_nothing_of_an_extra(name: str, trap: Path) -> None:
    shown = ganforge(name, "--help", without=WITHOUT["serve"] + WITHOUT["export"], cwd=trap)
    assert shown.returncode == 0, shown.stderr
    assert f"Usage: ganforge {name}" in shown.stdout


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["serve", "--bundles", "."], "serve"),
        (["build", "--list"], "export"),
        (["inspect", "file.pth"], "export"),
        (["train", "--model", "esrgan", "--list"], "export"),
    ],
)
def test_a_missing_extra_is_named(words: list[str], extra: str, tmp_path: Path) -> None:
    refused = ganforge(*words, without=WITHOUT[extra], cwd=tmp_path)
    assert refused.returncode == 1
    assert f"ganforge {words[0]} needs the extra '{extra}'" in refused.stderr
    assert f"pip install 'ganforge[{extra}]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_module_of_the_base_that_is_missing_is_not_blamed_on_an_extra(tmp_path: Path) -> None:
    failed = ganforge("models", without=("server.client.connection",), cwd=tmp_path)
    assert "ModuleNotFoundError" in failed.stderr
    assert "needs the extra" not in failed.stderr


@pytest.mark.parametrize("name", ["serve", "convert"])
def test_files_in_the_working_folder_do_not_shadow_our_modules(name: str, trap: Path) -> None:
    shown = ganforge(name, "--help", cwd=trap)
    assert shown.stdout.startswith(f"Usage: ganforge {name} "), shown.stderr


def test_files_in_the_working_folder_do_not_shadow_a_launched_server(
    trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trap)
    (trap / "bundles").mkdir()
    with pytest.raises(BackendUnavailable) as refused, launched(trap / "bundles", log=trap / "log"):
        pass
    assert "no bundle" in str(refused.value)
    assert "working folder" not in str(refused.value)
