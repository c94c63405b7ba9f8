"""Finds public data sets and networks under $GANFORGE_DATA, by default data/; tests that need a missing one are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DEFAULT = Path(__file__).resolve().parents[3] / "data"


def public(name: str) -> Path:
    """The path of the file or folder `name`. Skips the test if it is missing."""
    path = Path(os.environ.get("GANFORGE_DATA", DEFAULT)) / name
    if not path.exists():
        pytest.skip(f"no {path}; set GANFORGE_DATA to the folder that holds {name}")
    return path
