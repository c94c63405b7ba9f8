"""Installs of the package outside the repository, for tests: a copy of its files, bare environments, and a package index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("export", "protos", "runtime", "server")
FILES = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE")
# Of one command: an install of the serving side takes a minute, and several on a busy machine.
INSTALL_TIMEOUT_S = 900
# What every bare environment has, before anything is installed.
INSTALLERS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")


def copy_of_source(target: Path, packages: tuple[str, ...] = PACKAGES) -> Path:
    """A copy of what an installation is made from: pip writes a build folder beside it."""
    target.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, target)
    for name in packages:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, without what leads Python back to the repository or to its virtual environment."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    return inherited | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"} | changes


def run(
    *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A finished process; its outputs are text."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=dict(env or environment()),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=INSTALL_TIMEOUT_S,
    )


def base_python() -> Path:
    """The interpreter that this environment was made with."""
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def bare_environment(folder: Path) -> Path:
    """A virtual environment with pip and nothing else; the path of its `bin`."""
    made = run(base_python(), "-m", "venv", folder, cwd=folder.parent)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "bin"


def needs_package_index(bin: Path) -> None:
    """Skips the test where pip reaches no package index."""
    tried = run(bin / "pip", "download", "-q", "--no-deps", "--dest", bin.parent / "tried", "click", cwd=bin)
    if tried.returncode != 0:
        pytest.skip("no package index can be reached from here: pip download click failed")


def size_mb(bin: Path) -> float:
    """Size of what was installed, in millions of bytes, without pip and setuptools."""
    (packages,) = (bin.parent / "lib").glob("python*/site-packages")
    installed = [path for path in packages.iterdir() if not path.name.startswith(INSTALLERS)]
    files = [file for path in installed for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
