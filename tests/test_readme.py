"""What the README shows works: targets, flags, links, the client's commands and its Python example."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from export.build.options import BuildOptions
from export.build.pipeline import build
from runtime import pixels
from server import cli
from server.cli import SUBCOMMANDS
from server.launch import launched
from tests.conftest import TinyBundle
from tests.server.clips import write_clip

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md")
# Where the command line of `python -m NAME` is, if not in NAME itself or its __main__.
COMMANDS = {"export.build": "export.build.command"}
ADDRESS = "127.0.0.1:50051"


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page(name), re.MULTILINE | re.DOTALL)


def commands(starting_with: str) -> list[list[str]]:
    """The words of each command in the pages' shell blocks; a trailing backslash joins lines, a comment is cut."""
    lines = [
        line
        for name in PAGES
        for block in blocks(name, "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(line, comments=True) for line in lines]
    return [command for command in words if command[: len(starting_with.split())] == starting_with.split()]


def command_line(module: str) -> click.Command:
    for name in (COMMANDS.get(module, module), f"{module}.__main__"):
        command = getattr(importlib.import_module(name), "main", None)
        if isinstance(command, click.Command):
            return command
    raise AssertionError(f"python -m {module} has no command line")


def test_the_readme_is_short_and_shows_a_picture() -> None:
    assert len(page("README.md").splitlines()) < 120
    assert "![" in page("README.md")


@pytest.mark.parametrize(
    "target", sorted({words[1] for words in commands("make")} | {"bench", "serve", "check"})
)
def test_make_knows_the_target(target: str) -> None:
    made = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert made.returncode == 0, made.stderr


def test_make_help_lists_every_target_for_people() -> None:
    output = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "serve", "test", "check", "bench", "clean", "proto"):
        assert f"make {target} " in output


def client_commands() -> list[list[str]]:
    """The words of each call of a server, behind `python -m server.client` or `ganforge`."""
    calls = [
        words[1:]
        for words in commands("ganforge")
        if SUBCOMMANDS[words[1]].command.startswith("server.client")
    ]
    return [words[3:] for words in commands("python -m server.client")] + calls


@pytest.mark.parametrize("words", commands("python -m") + commands("ganforge"), ids=" ".join)
def test_a_command_takes_the_flags_that_it_is_shown_with(words: list[str]) -> None:
    command, arguments = (
        (cli.main, words[1:]) if words[0] == "ganforge" else (command_line(words[2]), words[3:])
    )
    # Click refuses a flag that it does not know before it looks at --help.
    result = CliRunner().invoke(command, [*arguments, "--help"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_files_that_are_there(name: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page(name))
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder: a photo, a folder of photos, and a clip."""
    folder = tmp_path_factory.mktemp("newcomer")
    portrait = pixels.decode((ROOT / "export/assets/portrait.png").read_bytes(), max_pixels=1 << 20)
    (folder / "photos").mkdir()
    for name, side in (("photo.jpg", 60), ("photos/a.jpg", 40), ("photos/b.jpg", 50)):
        (folder / name).write_bytes(pixels.encode(portrait[:side, :side], "jpeg"))
    write_clip(folder / "clip.mp4", frames=3)
    return folder


@pytest.fixture(scope="module")
def bundles(tiny_bundle: TinyBundle, tiny_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny bundles under the names of all that `make demo` builds; style takes the demo's whole picture."""
    folder = tmp_path_factory.mktemp("shipped") / "bundles"
    shutil.copytree(tiny_bundles, folder)
    upscaler = tiny_bundle("esrgan", "float32")
    sizes = {"tile": max(upscaler.manifest.tile_sizes), "halo": upscaler.manifest.halo}
    whole = {"max_whole_px": 1 << 17}
    shipped: tuple[tuple[str, str, Any], ...] = (("esrgan", "esrgan-photo", sizes), ("style", "style", whole))
    for model, name, limits in shipped:
        weights = str(tiny_bundle(model, "float32").path.parents[1] / f"{model}.safetensors")
        build(BuildOptions(model, weights, {}, folder, name, "float32", targets=("onnx",), **limits))
    return folder


@pytest.fixture(scope="module")
def address(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with launched(bundles, log=tmp_path_factory.mktemp("log") / "server.log") as server:
        yield server.address


def run(words: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_clients_commands_run(address: str, folder: Path) -> None:
    shown = client_commands()
    assert {words[0] for words in shown} >= {"models", "upscale", "translate", "generate"}
    for words in shown:
        run(["-m", "server.client", *words, "--address", address], folder)
    made = {path.name for path in folder.rglob("*")}
    assert {"photo-x4.png", "clip-x4.mp4", "painted.png", "samples.png", "a-x4.jpg", "b-x4.jpg"} <= made


@pytest.mark.slow
def test_the_python_example_runs(address: str, folder: Path) -> None:
    (example,) = blocks("README.md", "python")
    assert ADDRESS in example
    output = run(["-c", example.replace(ADDRESS, address)], folder)
    assert output.split()[:3] == ["240", "240", "openvino"]


@pytest.mark.slow
def test_the_demo_shows_every_model(bundles: Path, tmp_path: Path) -> None:
    picture = ROOT / "export/assets/portrait.png"
    output = run(
        ["-m", "server.demo", "--bundles", str(bundles), "--picture", str(picture), "--output", "shown"],
        tmp_path,
    )
    upscaled = ("portrait-x4.png", "portrait-esrgan-photo-x4.png", "portrait-esrgan-photo-beside-bicubic.png")
    others = ("portrait-beside-bicubic.png", "portrait-style.png", "dcgan-samples.png", "acgan-samples.png")
    for name in (*upscaled, *others):
        assert f"shown/{name}" in output
        assert (tmp_path / "shown" / name).stat().st_size > 0
