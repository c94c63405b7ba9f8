"""No circles among the imports, of files or of packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("export", "runtime", "protos", "server", "benchmarks")

Graph = Mapping[str, set[str]]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


@cache
def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports by name, inside functions too."""
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                target = submodule if submodule in FILES else node.module
                if target in FILES:
                    yield target


@cache
def file_graph() -> Graph:
    return {name: set(imported_modules(path)) - {name} for name, path in FILES.items()}


def package_of(name: str, depth: int) -> str:
    """The package that a module belongs to, at most `depth` names deep; a file outside packages stands for itself."""
    is_package = FILES[name].name == "__init__.py"
    parent = name if is_package else name.rpartition(".")[0]
    parts = parent.split(".")
    return name if len(parts) == 1 and not is_package else ".".join(parts[:depth])


def package_graph(depth: int) -> Graph:
    graph: dict[str, set[str]] = {}
    for name, imports in file_graph().items():
        package = package_of(name, depth)
        graph.setdefault(package, set()).update({package_of(other, depth) for other in imports} - {package})
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """The strongly connected parts of more than one node (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    parts: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                parts.append(part)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return parts


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_graph_sees_imports_of_modules_and_of_names() -> None:
    graph = file_graph()
    assert "runtime.errors" in graph["runtime.scheduler"]  # from runtime.errors import …
    assert "export.families" in graph["export.training.recipes"]  # from export import families


def test_no_file_imports_in_a_circle() -> None:
    assert circles(file_graph()) == []


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_no_package_imports_in_a_circle(depth: int) -> None:
    assert circles(package_graph(depth)) == []
