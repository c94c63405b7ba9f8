"""What opening a model takes, and how much memory a process may still take, by machine, control groups and rlimits."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from server.models import memory
from tests.server.versions import write_version

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GiB to spare and no limits. Its files are in this folder."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\n")
    for name, file in {"MEMINFO": "meminfo", "OWN_CGROUPS": "cgroup", "CGROUPS": "groups"}.items():
        monkeypatch.setattr(memory, name, tmp_path / file)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return tmp_path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_without_control_groups_it_is_the_machines(machine: Path) -> None:
    assert memory.available_bytes() == 8 * GIB


def test_the_tightest_control_group_decides(machine: Path) -> None:
    (machine / "cgroup").write_text("0::/system/ganforge\n")
    group(machine / "groups" / "system" / "ganforge", max="max", current=GIB)
    assert memory.available_bytes() == 8 * GIB
    group(machine / "groups" / "system", max=4 * GIB, current=GIB, stat=f"anon 5\ninactive_file {GIB // 2}")
    assert memory.available_bytes() == 3.5 * GIB
    group(machine / "groups", max=2 * GIB, current=3 * GIB)
    assert memory.available_bytes() == 0


def test_control_groups_of_version_1(machine: Path) -> None:
    (machine / "cgroup").write_text("9:cpu:/x\n4:memory:/docker/1\n")
    group(
        machine / "groups" / "memory" / "docker" / "1",
        limit_in_bytes=2 * GIB,
        usage_in_bytes=GIB,
        stat=f"inactive_file 7\ntotal_inactive_file {GIB // 4}",
    )
    assert memory.available_bytes() == 1.25 * GIB


def test_a_limit_on_the_address_space_counts() -> None:
    code = f"""
import resource
from server.models import memory
resource.setrlimit(resource.RLIMIT_AS, ({4 * GIB}, {4 * GIB}))
print(memory.available_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2 * GIB < int(done.stdout) < 4 * GIB


def test_a_system_that_says_nothing(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert memory.available_bytes() is None


def test_opening_takes_the_engines_activations_and_a_multiple_of_the_weights(tmp_path: Path) -> None:
    bundle = write_version(tmp_path, 1)
    graph_bytes = bundle.manifest.files["model.onnx"].bytes
    assert memory.bytes_to_open(bundle) == memory.ACTIVATIONS_BYTES + 6 * graph_bytes
