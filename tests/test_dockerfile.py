"""The Dockerfile's steps, replayed without Docker, with the image's paths under a scratch folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.installing import (
    INSTALL_TIMEOUT_S,
    ROOT,
    bare_environment,
    base_python,
    environment,
    needs_package_index,
    run,
)
from tests.server.bundles import write_upscaler

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# 287 MiB were measured (398 before what a server never loads was left out); compiled Python files included.
MOST_MEGABYTES = 330
# Folders of the image that the steps write to.
OF_IMAGE = re.compile(r"(?<![\w.}/])/(?=opt/|dist\b|src\b|home\b)")


def instructions() -> Iterator[tuple[str, str]]:
    """(FROM, "python:3.12-slim AS code"), and so on."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def let_into_the_build() -> list[str]:
    """The names at the root that .dockerignore leaves to COPY."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


@dataclass
class Replay:
    """Runs the instructions under `root`. One folder serves all stages; a stage begins with an empty /src."""

    root: Path
    python: Path
    variables: dict[str, str] = field(default_factory=dict)
    workdir: Path = Path("/")
    entrypoint: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def place(self, path: str) -> Path:
        """A path of the image, on this machine."""
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def environment(self) -> dict[str, str]:
        bins = (self.python, self.place("/opt/ganforge/bin"), "/usr/bin", "/bin")
        # The image keeps no cache of packages; here one saves downloads.
        left_out = ("PATH", "PIP_NO_CACHE_DIR")
        variables = {
            name: OF_IMAGE.sub(f"{self.root}/", value)
            for name, value in self.variables.items()
            if name not in left_out
        }
        return environment(**variables, PIP_NO_COMPILE="1", PATH=os.pathsep.join(map(str, bins)))

    def run_all(self) -> None:
        self.root.mkdir()
        for name, rest in instructions():
            getattr(self, f"do_{name.lower()}", lambda rest: None)(rest)

    def do_from(self, rest: str) -> None:
        self.workdir = Path("/")
        shutil.rmtree(self.place("/src"), ignore_errors=True)

    def do_arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self.variables[name] = value

    def do_env(self, rest: str) -> None:
        for word in shlex.split(rest):
            self.do_arg(word)

    def do_workdir(self, rest: str) -> None:
        self.workdir = Path(rest)
        self.place(rest).mkdir(parents=True, exist_ok=True)

    def do_copy(self, rest: str) -> None:
        *sources, target = rest.split()
        if sources[0].startswith("--from="):
            assert sources[1:] == [target], "the replay has one folder for all stages"
            return
        for source in let_into_the_build() if sources == ["."] else sources:
            assert source in let_into_the_build(), f".dockerignore keeps {source} from COPY"
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, self.place(target) / source, ignore=ignored)
            else:
                shutil.copy(ROOT / source, self.place(target))

    def do_run(self, rest: str) -> None:
        if rest.startswith("useradd"):  # needs root
            return
        command = OF_IMAGE.sub(f"{self.root}/", rest)
        done = run("sh", "-euc", command, cwd=self.place("."), env=self.environment())
        assert done.returncode == 0, f"RUN {rest}\n{done.stdout}{done.stderr}"

    def do_entrypoint(self, rest: str) -> None:
        self.entrypoint = json.loads(rest)

    def do_healthcheck(self, rest: str) -> None:
        self.healthcheck = json.loads(rest.partition("CMD ")[2])


def test_no_step_lists_folders_of_the_code() -> None:
    """What is not listed cannot be forgotten there when a folder is added."""
    steps = [rest for name, rest in instructions() if name == "RUN"]
    assert [step for step in steps if "mkdir" in step] == []


def test_dockerignore_lets_in_the_serving_side_and_no_more() -> None:
    folders = {name for name in let_into_the_build() if (ROOT / name).is_dir()}
    assert folders == {"protos", "runtime", "server"}
    copied = [name for step, rest in instructions() if step == "COPY" for name in rest.split()[:-1]]
    assert "." in copied


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_TIMEOUT_S)
def test_the_steps_install_a_server(tmp_path: Path) -> None:
    needs_package_index(bare_environment(tmp_path / "probe"))
    python = tmp_path / "python"
    python.mkdir()
    (python / "python").symlink_to(base_python())
    replay = Replay(tmp_path / "image", python)
    replay.run_all()
    # Away from the code and from this repository.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(replay.place("/src"), ignore_errors=True)
    shown = run(*replay.entrypoint, "--help", cwd=elsewhere, env=replay.environment())
    assert "--bundles" in shown.stdout, shown.stderr
    settings = run(*replay.entrypoint, "--print-config", cwd=elsewhere, env=replay.environment()).stdout
    assert f'bundles = "/bundles"  # {replay.place("/opt/ganforge/ganforge.toml")}' in settings
    assert 'host = "0.0.0.0"' in settings
    address = ["--address", "127.0.0.1:1"]
    health = run(*replay.healthcheck, *address, cwd=elsewhere, env=replay.environment())
    assert (health.returncode, "is not serving" in health.stderr) == (1, True), health.stderr
    document = json.loads(replay.place("/opt/ganforge/sbom.json").read_text(encoding="utf-8"))
    names = {component["name"] for component in document["components"]}
    assert {"grpcio", "openvino", "pyvips"} <= names
    assert not names & {"torch", "onnx", "matplotlib"}
    check_that_it_is_small(replay.place("/opt/ganforge"))
    write_upscaler(tmp_path / "bundles")
    for backend in ("openvino", "onnxruntime"):
        flags = ["--bundles", str(tmp_path / "bundles"), "--backend", backend, "--json"]
        done = run("ganforge", "doctor", *flags, cwd=elsewhere, env=replay.environment())
        findings = [each for each in json.loads(done.stdout) if each["section"] == "bundles"]
        assert [each["status"] for each in findings] == ["ok"], findings


def check_that_it_is_small(installed: Path) -> None:
    """The files of the image beside the interpreter: no tests, no installer, not many more megabytes than were measured."""
    files = [path for path in installed.rglob("*") if path.is_file() and not path.is_symlink()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    assert megabytes < MOST_MEGABYTES, f"the image's own files are {megabytes:.0f} MB"
    parts = {part for path in files for part in path.relative_to(installed).parts}
    assert not parts & {"tests", "pip", "ensurepip", "libopenvino_intel_gpu_plugin.so"}
    assert list(installed.rglob("licenses/*"))
