"""Deliberate faults as data: the `[[fault]]` entries of tests/mutants/<room>.toml.

tests/mutants/runner.py applies them; tests/mutants/test_faults.py checks that no entry has gone stale.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
REQUIRED = {"name", "file", "before", "after"}


class StaleFault(Exception):
    """An entry that no longer fits the source: which, and why."""


@dataclass(frozen=True)
class Fault:
    """One deliberate fault: the text `before`, which occurs once in `file`, replaced by `after`.

    room: the stem of the .toml file that holds it. file: relative to the repository's root. tests: pytest arguments,
    every run of which must fail with the fault in place. equivalent: why the fault changes nothing that a test could
    see; such a fault has no tests and is not run.
    """

    room: str
    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...] = ()
    equivalent: str = ""


def read(folder: Path = FOLDER) -> list[Fault]:
    """The faults of every .toml file in `folder`. Raises StaleFault for an entry with missing or unknown keys."""
    return [fault for path in sorted(folder.glob("*.toml")) for fault in read_file(path)]


def read_file(path: Path) -> list[Fault]:
    faults = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("fault", []):
        name = f"{path.name}: {entry.get('name', 'a fault without a name')}"
        if missing := REQUIRED - set(entry):
            raise StaleFault(f"{name}: {', '.join(sorted(missing))} missing")
        if unknown := set(entry) - REQUIRED - {"tests", "equivalent"}:
            raise StaleFault(f"{name}: unknown key {', '.join(sorted(unknown))}")
        if bool(entry.get("tests")) == bool(entry.get("equivalent")):
            raise StaleFault(f"{name}: expected either `tests` or `equivalent`")
        faults.append(Fault(room=path.stem, **entry | {"tests": tuple(entry.get("tests", ()))}))
    return faults


def faulty_text(fault: Fault, root: Path) -> str:
    """The whole of the fault's file below `root`, with the fault in it.

    Raises StaleFault where the file is gone, `before` does not occur exactly once, or the result is no Python.
    """
    path = root / fault.file
    if not path.is_file():
        raise StaleFault(f"{fault.room}: {fault.name}: there is no file {fault.file}")
    text = path.read_text(encoding="utf-8")
    if (count := text.count(fault.before)) != 1:
        raise StaleFault(
            f"{fault.room}: {fault.name}: `before` occurs {count} times in {fault.file}, expected 1"
        )
    changed = text.replace(fault.before, fault.after)
    if changed == text:
        raise StaleFault(f"{fault.room}: {fault.name}: `after` is the same as `before`")
    if path.suffix == ".py":
        try:
            ast.parse(changed)
        except SyntaxError as error:
            raise StaleFault(
                f"{fault.room}: {fault.name}: the faulty {fault.file} is no Python: {error}"
            ) from error
    return changed


def check_test_exists(argument: str, root: Path) -> None:
    """Raises StaleFault where `argument` (FILE, FILE::test, FILE::Class::test, each with [parameters]) names no test."""
    file, *names = argument.split("[", 1)[0].split("::")
    path = root / file
    if not path.exists():
        raise StaleFault(f"{argument}: there is no file {file}")
    if path.is_dir():
        return
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    for name in names:
        named = [node for node in nodes if getattr(node, "name", None) == name]
        if not named:
            raise StaleFault(f"{argument}: {file} defines no {name}")
        nodes = getattr(named[-1], "body", [])
