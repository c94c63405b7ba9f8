"""Public data sets and networks, where the machine has them: under $GANFORGE_DATA, by default data/."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DEFAULT = Path(__file__).resolve().parents[3] / "data"


def public(name: str) -> Path:
    """The file or folder `name`; the test is skipped where it is not there."""
    path = Path(os.environ.get("GANFORGE_DATA", DEFAULT)) / name
    if not path.exists():
        pytest.skip(f"no {path}; set GANFORGE_DATA to the folder that holds {name}")
    return path
