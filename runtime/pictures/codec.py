"""Configures libvips for untrusted files. All other modules of this package import `pyvips` from here.

The operation cache is off, loaders that libvips marks as untrusted and that of UltraHDR are blocked, and an image is
decoded on one thread.
"""

from __future__ import annotations

import pyvips

from runtime.errors import InvalidInput

__all__ = ["damaged", "pyvips", "reason"]

pyvips.cache_set_max(0)  # keep nothing of one caller for the next
pyvips.block_untrusted_set(True)
# Recent phones append a gain map to their JPEGs. Without its loader, libvips reads them as the JPEGs that they are.
pyvips.operation_block_set("VipsForeignLoadUhdr", True)
# Requests already run in parallel; more threads within one decode would only compete with them.
pyvips.concurrency_set(1)


def reason(error: pyvips.Error) -> str:
    """libvips' message: the last line of its log, which names the original cause."""
    lines = [line.strip() for line in str(error.detail or error.message).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def damaged(error: pyvips.Error) -> InvalidInput:
    """The error for a file whose pixels cannot be decoded."""
    return InvalidInput("image", f"the file is damaged or cut short: {reason(error)}")
