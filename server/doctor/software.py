"""Which Python and packages are installed, by what pyproject.toml asks for. command.py calls `check`."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata

from server.doctor.finding import Finding

SECTION = "software"
NAME = re.compile(r"[\w.-]+")
EXTRA = re.compile(r"extra == ['\"](\w+)['\"]")


def requirements(extra: str) -> list[str]:
    """The names of packages that ganforge needs itself (extra "") or that an extra adds."""
    found = []
    for line in metadata.requires("ganforge") or []:
        marked = EXTRA.search(line)
        name = NAME.match(line)
        if name and (marked.group(1) if marked else "") == extra and name.group() != "ganforge":
            found.append(name.group())
    return found


def check() -> Iterator[Finding]:
    """Python, ganforge, and each package of the client and of the server. A package of these that is missing is an error."""
    yield Finding(SECTION, "python", f"{platform.python_version()} ({sys.executable})")
    try:
        yield Finding(SECTION, "ganforge", metadata.version("ganforge"))
        base = requirements("")
    except metadata.PackageNotFoundError:
        yield Finding(SECTION, "ganforge", "runs from a folder without being installed", "warning")
        return
    for name in base:
        yield _package(name, "")
    for name in requirements("serve"):
        if name not in base:  # the server may bound the version of a package that the client needs too
            yield _package(name, "serve")


def _package(name: str, extra: str) -> Finding:
    try:
        return Finding(SECTION, name, metadata.version(name))
    except metadata.PackageNotFoundError:
        install = f"ganforge[{extra}]" if extra else "ganforge"
        return Finding(SECTION, name, f"is not installed (pip install '{install}')", "error")
