"""What an installation brings: pins for everything, and no torch on the serving side."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in (
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
}


def closure(*extras: str) -> set[str]:
    """Every package that `pip install .[extras]` brings here; one not installed here is taken to need no others."""
    asked = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [
        (text, frozenset[str]()) for text in asked
    ]  # a requirement, and the extras of whatever asks for it
    while waiting:
        text, asked_with = waiting.pop()
        requirement = Requirement(text)
        wanted = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        marker = requirement.marker
        if wanted in found or (
            marker and not any(marker.evaluate({"extra": extra}) for extra in {"", *asked_with})
        ):
            continue
        found.add(wanted)
        try:
            waiting += [(child, wanted[1]) for child in metadata.requires(requirement.name) or []]
        except metadata.PackageNotFoundError:
            continue
    return {name for name, _ in found}


@pytest.mark.parametrize("extras", [(), ("serve",), ("serve", "nvidia")])
def test_the_serving_side_brings_no_torch(extras: tuple[str, ...]) -> None:
    brought = closure(*extras)
    assert {"numpy", "pyvips"} <= brought
    assert not brought & {"torch", "onnx", "onnxscript", "safetensors", "matplotlib"}


def test_everything_that_an_extra_brings_is_pinned() -> None:
    assert closure(*EXTRAS) - set(PINS) == set()


def test_the_environment_is_the_pinned_one() -> None:
    here = {
        canonicalize_name(found.name): Version(Version(found.version).public)
        for found in metadata.distributions()
    }
    assert {
        name: version for name, version in here.items() if name in closure(*EXTRAS) and PINS[name] != version
    } == {}


def test_every_pin_fits_what_is_asked_for() -> None:
    asked = [
        Requirement(text)
        for texts in (PROJECT["project"]["dependencies"], *EXTRAS.values())
        for text in texts
    ]
    assert [str(one) for one in asked if PINS[canonicalize_name(one.name)] not in one.specifier] == []


def test_each_dependency_says_what_for_and_its_licence() -> None:
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]", 1)
    body = lines[0].split("dependencies = [", 1)[1] + lines[1].split("[tool.", 1)[0]
    previous = ""
    for line in body.splitlines():
        text = line.strip()
        if text.startswith('"') and "#" not in text:
            assert "tensorrt-rtx" in text, f"say what this is for, and its licence: {text}"
            assert "proprietary" in previous or "tensorrt-rtx" in previous
        previous = text


def test_packages_are_listed_explicitly_and_completely() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    rooms = ("export", "protos", "runtime", "server")
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in rooms
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert there == listed
