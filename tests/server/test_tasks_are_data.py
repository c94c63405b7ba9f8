"""No code of the server compares a task's name: what a task is, runtime/tasks says as data."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import tasks

ROOT = Path(__file__).resolve().parents[2]
NAMES = {str(name) for name in tasks.ALL}
SOURCES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "server").rglob("*.py"))


def branches(source: str) -> Iterator[int]:
    """Lines that compare something with a task's name, by an operator or in a `match`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare | ast.MatchValue) and any(map(_names_a_task, ast.walk(node))):
            yield node.lineno


def _names_a_task(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in NAMES
    return isinstance(node, ast.Attribute) and node.attr in {f"TASK_{name.upper()}" for name in NAMES}


@pytest.mark.parametrize("path", SOURCES)
def test_no_file_of_the_server_branches_on_a_tasks_name(path: str) -> None:
    lines = list(branches((ROOT / path).read_text(encoding="utf-8")))
    assert not lines, f"{path} compares a task's name on lines {lines}; ask runtime/tasks instead"


@pytest.mark.parametrize(
    "source",
    [
        'if task == "upscale": pass',
        'x = 1 if model.task in ("generate", "translate") else 2',
        "if info.task != pb.TASK_GENERATE: pass",
        'match task:\n    case "upscale":\n        pass',
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert list(branches(source))


def test_the_search_leaves_data_alone() -> None:
    assert not list(branches('NUMBERS = {"upscale": pb.TASK_UPSCALE}\nfind("upscale", name)'))
