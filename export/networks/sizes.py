"""Checks the sample size of generators that start from 4×4 maps and double them: DCGAN and ACGAN call it."""

from __future__ import annotations


def check_doubling(size: int, channels: int) -> None:
    """Raises ValueError unless `size`, in pixels, is a power of two from 32 and `channels` is 1 or 3."""
    if size < 32 or size & (size - 1):
        raise ValueError(f"size: got {size}, expected a power of two from 32")
    if channels not in (1, 3):
        raise ValueError(f"channels: got {channels}, expected 1 or 3")
