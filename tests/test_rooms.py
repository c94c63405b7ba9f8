"""Which room may import which. The serving side must stay small, and installable without torch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("export", "runtime", "protos", "server", "benchmarks")

# What a file may import of the rooms, by the longest path that it lies under.
MAY_IMPORT = {
    "runtime": {"runtime"},
    "protos": {"protos"},
    "server": {"server", "runtime", "protos"},
    "export": {"export", "runtime"},
    "export/evaluate.py": {"export", "runtime", "server"},
}
# Libraries that only the export extra brings.
OFFLINE = {"torch", "onnx", "onnxscript", "safetensors", "matplotlib"}
# Engine libraries, each of which belongs to one file; TensorRT to two: one compiles a plan, one runs it.
ENGINES = {
    "openvino": {"runtime/backends/openvino_backend.py"},
    "onnxruntime": {"runtime/backends/onnxruntime_backend.py"},
    "cuda": {"runtime/backends/tensorrt_cuda.py"},
    "tensorrt": {"runtime/backends/tensorrt_backend.py", "runtime/backends/tensorrt_plan.py"},
    "tensorrt_rtx": {"runtime/backends/tensorrt_backend.py", "runtime/backends/tensorrt_plan.py"},
    "tensorrt_rtx_bindings": {"runtime/backends/tensorrt_backend.py", "runtime/backends/tensorrt_plan.py"},
}


def sources(*rooms: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: str) -> Iterator[str]:
    """Top-level names that a file imports, inside functions too."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def allowed(path: str) -> set[str]:
    return max(
        ((under, rooms) for under, rooms in MAY_IMPORT.items() if path.startswith(under)),
        key=lambda x: len(x[0]),
    )[1]


@pytest.mark.parametrize("path", sources("runtime", "protos", "server", "export"))
def test_a_file_imports_only_rooms_that_it_may(path: str) -> None:
    strangers = (set(imported(path)) & {*ROOMS, "tests"}) - allowed(path)
    assert not strangers, f"{path} imports {sorted(strangers)}; it may import {sorted(allowed(path))}"


@pytest.mark.parametrize("path", sources("runtime", "protos", "server"))
def test_the_serving_side_needs_nothing_of_the_export_extra(path: str) -> None:
    strangers = set(imported(path)) & OFFLINE
    assert not strangers, f"{path} imports {sorted(strangers)}, which the serving side installs without"


@pytest.mark.parametrize("path", sources("runtime", "server"))
def test_an_engine_library_stays_in_its_backends_file(path: str) -> None:
    strangers = {library for library in set(imported(path)) & set(ENGINES) if path not in ENGINES[library]}
    assert not strangers, f"{path} imports {sorted(strangers)}: only a backend's own file may"


@pytest.mark.parametrize("path", sources(*ROOMS))
def test_a_file_is_named_for_what_it_does_and_shadows_no_library(path: str) -> None:
    libraries = OFFLINE | set(ENGINES) | {"grpc", "numpy", "pyvips"} | sys.stdlib_module_names
    stem = Path(path).stem
    assert stem == "__init__" or stem == "__main__" or stem not in libraries, (
        f"{path} is named like the library {stem}"
    )
