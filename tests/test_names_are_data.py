"""No code compares the name of a task or of a model family: what they are is data, in runtime/tasks and export/models."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import tasks

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("benchmarks", "export", "runtime", "server")
# Where a name is at home.
HOMES = ("runtime/tasks/", "export/models/")
TASKS = {str(name) for name in tasks.ALL}
FAMILIES = {path.parent.name for path in (ROOT / "export" / "models").glob("*/generator.py")}
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if not str(path.relative_to(ROOT)).startswith(HOMES)
)


def branches(source: str) -> Iterator[int]:
    """Lines that compare something with the name of a task or a family, by an operator or in a `match`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.MatchValue) and any(map(_is_a_name, ast.walk(node))):
            yield node.lineno


def _is_a_name(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in TASKS | FAMILIES
    return isinstance(node, ast.Attribute) and node.attr in {f"TASK_{name.upper()}" for name in TASKS}


@pytest.mark.parametrize("path", SOURCES)
def test_no_file_branches_on_a_name(path: str) -> None:
    lines = list(branches((ROOT / path).read_text(encoding="utf-8")))
    assert not lines, f"{path} compares the name of a task or a family on lines {lines}; make it data there"


@pytest.mark.parametrize(
    "source",
    [
        'if task == "upscale": pass',
        'x = 1 if model.task in ("generate", "translate") else 2',
        "if info.task != pb.TASK_GENERATE: pass",
        'side = 4 if options.model == "esrgan" else 1',
        'match task:\n    case "upscale":\n        pass',
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert list(branches(source))


def test_the_search_leaves_data_alone() -> None:
    assert not list(branches('NUMBERS = {"upscale": pb.TASK_UPSCALE}\nfind("upscale", name)'))
