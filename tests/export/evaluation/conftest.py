"""The evaluation tests run torch on one thread, so that sums are always added in the same order."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
