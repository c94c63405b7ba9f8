"""Fixtures for the data tests: the Set5 pictures, if they are on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.evaluation.data import public


@pytest.fixture
def set5() -> Path:
    """The Set5 test pictures: $GANFORGE_DATA/set5, by default data/set5. Skips the test if they are missing."""
    return public("set5")
