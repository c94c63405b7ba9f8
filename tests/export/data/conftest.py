"""Public test pictures, where the machine has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.evaluation.data import public


@pytest.fixture
def set5() -> Path:
    """The Set5 test pictures: $GANFORGE_DATA/set5, by default data/set5. Skips where they are missing."""
    return public("set5")
