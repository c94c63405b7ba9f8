"""What an installation contains: pins for everything, a small base, no torch on the serving side, every package."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools import find_packages

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NAME = PROJECT["project"]["name"]
BASE: list[str] = PROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in (
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    )
}


def expanded(texts: Sequence[str]) -> list[str]:
    """The requirements, with those of the extras that they name as ganforge[extra]."""
    requirements: list[str] = []
    for text in texts:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == NAME:
            requirements += expanded([own for extra in requirement.extras for own in EXTRAS[extra]])
        else:
            requirements.append(text)
    return requirements


def closure(*extras: str) -> set[str]:
    """Every package that `pip install .[extras]` brings here; one not installed here is taken to need no others."""
    asked = expanded([*BASE, *(text for extra in extras for text in EXTRAS[extra])])
    brought: set[tuple[str, frozenset[str]]] = set()
    # A requirement, and the extras of whatever asks for it.
    waiting = [(text, frozenset[str]()) for text in asked]
    while waiting:
        text, asked_with = waiting.pop()
        requirement = Requirement(text)
        wanted = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        marker = requirement.marker
        if wanted in brought or (
            marker and not any(marker.evaluate({"extra": extra}) for extra in {"", *asked_with})
        ):
            continue
        brought.add(wanted)
        try:
            waiting += [(child, wanted[1]) for child in metadata.requires(requirement.name) or []]
        except metadata.PackageNotFoundError:
            continue
    return {name for name, _ in brought}


@pytest.mark.parametrize("extras", [(), ("client",)])
def test_the_base_is_the_client_alone(extras: tuple[str, ...]) -> None:
    brought = closure(*extras)
    assert {"grpcio", "protobuf", "click"} <= brought
    assert not brought & {"numpy", "pyvips", "openvino", "onnxruntime", "torch", "structlog"}


@pytest.mark.parametrize("extras", [("serve",), ("nvidia",)])
def test_the_serving_side_brings_no_torch(extras: tuple[str, ...]) -> None:
    brought = closure(*extras)
    assert {"numpy", "pyvips", "openvino", "grpcio"} <= brought
    assert not brought & {"torch", "onnx", "onnxscript", "safetensors", "matplotlib"}


def test_export_brings_what_verifies_a_bundle() -> None:
    assert closure("serve") <= closure("export")


def test_everything_that_an_extra_brings_is_pinned() -> None:
    assert closure(*EXTRAS) - set(PINS) == set()


def test_the_environment_is_the_pinned_one() -> None:
    installed = {
        canonicalize_name(package.name): Version(Version(package.version).public)
        for package in reversed(
            [*metadata.distributions()]
        )  # the first wins: setuptools brings old copies last
    }
    brought = closure(*EXTRAS)
    different = {
        name: version for name, version in installed.items() if name in brought and PINS[name] != version
    }
    assert different == {}


def test_every_pin_fits_what_is_asked_for() -> None:
    texts = expanded([text for texts in (BASE, *EXTRAS.values()) for text in texts])
    asked = [Requirement(text) for text in texts]
    assert [str(each) for each in asked if PINS[canonicalize_name(each.name)] not in each.specifier] == []


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


def test_every_folder_with_code_is_a_package_that_is_installed_and_typed() -> None:
    """No list is kept: setuptools looks for the packages, and must see every folder that holds code."""
    settings = PROJECT["tool"]["setuptools"]
    packages = set(find_packages(str(ROOT), include=settings["packages"]["find"]["include"]))
    rooms = ("export", "protos", "runtime", "server")
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
    }
    assert folders == packages
    assert settings["package-data"]["*"] == ["py.typed"]
    assert [room for room in rooms if not (ROOT / room / "py.typed").exists()] == []
