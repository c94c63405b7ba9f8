"""No circles among the imports, of files or of packages; and no branch on a task's or a family's name outside its own file."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("export", "runtime", "protos", "server", "benchmarks")
TASKS = {path.stem for path in (ROOT / "runtime/tasks").glob("*.py")} - {"__init__", "task"}
FAMILIES = {path.parent.name for path in (ROOT / "export/models").glob("*/generator.py")}
# A task's name means something in its own file; a family's in its own folder.
TASK_FILES = "runtime/tasks/"
FAMILY_FOLDERS = "export/models/"

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


def test_the_names_to_look_for_are_there() -> None:
    assert {"upscale", "translate", "generate"} <= TASKS
    assert {"esrgan", "dcgan", "acgan"} <= FAMILIES


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


def compared_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of each string or constant's name that the code compares with or matches against."""
    for node in ast.walk(tree):
        values: Iterable[ast.AST] = ()
        if isinstance(node, ast.Compare):
            values = (node.left, *node.comparators)
        elif isinstance(node, ast.MatchValue):
            values = (node.value,)
        for value in values:
            for leaf in ast.walk(value):
                if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str):
                    yield leaf.lineno, leaf.value
                elif isinstance(leaf, ast.Attribute) and leaf.attr.startswith("TASK_"):
                    yield leaf.lineno, leaf.attr.removeprefix("TASK_").lower()


def test_comparisons_with_names_are_seen() -> None:
    code = 'if m.task == "upscale" or pb.TASK_GENERATE in x:\n  pass\nmatch y:\n  case "translate": pass\n'
    assert {name for _, name in compared_names(ast.parse(code))} >= {"upscale", "generate", "translate"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_branches_on_a_task_or_a_family(name: str) -> None:
    path = FILES[name]
    place = path.relative_to(ROOT).as_posix()
    if place.startswith("protos/"):
        return  # generated
    names = (set() if place.startswith(TASK_FILES) else TASKS) | (
        set() if place.startswith(FAMILY_FOLDERS) else FAMILIES
    )
    branches = [
        f"{place}:{line}: {text!r}" for line, text in compared_names(syntax_tree(path)) if text in names
    ]
    assert not branches, f"let the SPEC or the task say it: {'; '.join(branches)}"
