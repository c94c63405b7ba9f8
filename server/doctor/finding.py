"""Finding: one line of `ganforge doctor`. The checks yield them, command.py prints them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MIB, GIB = 2**20, 2**30

# An error means that serving cannot work.
Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. section, name: what. text: what was found, and for a problem what to do about it."""

    section: str
    name: str
    text: str
    status: Status = "ok"


def size(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
