"""libvips, configured for untrusted files. Every other module of the package imports `pyvips` from here.

No operation is cached, loaders that libvips calls untrusted are blocked, and one image is decoded on one thread.
"""

from __future__ import annotations

import pyvips

from runtime.errors import InvalidInput

__all__ = ["damaged", "pyvips", "reason"]

pyvips.cache_set_max(0)  # nothing of one caller is kept for the next
pyvips.block_untrusted_set(True)
# Requests are what runs side by side here; threads inside one decode would only take turns with them.
pyvips.concurrency_set(1)


def reason(error: pyvips.Error) -> str:
    """libvips' own message: the last line of its log, without those of its callers."""
    lines = [line.strip() for line in str(error.detail or error.message).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def damaged(error: pyvips.Error) -> InvalidInput:
    """The error for a file whose pixels cannot be decoded."""
    return InvalidInput("image", f"the file is damaged or cut short: {reason(error)}")
