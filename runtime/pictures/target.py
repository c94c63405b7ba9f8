"""FileTarget: an open file as libvips' target, which says why a write failed and can be stopped. writing.py uses it.

libvips itself reports every failed write alike, so a full disk would look like a picture that the format cannot hold.
"""

from __future__ import annotations

import errno
import os

from runtime.errors import OutOfSpace
from runtime.pictures.codec import pyvips
from runtime.stopping import Stop

# What the system says when no more can be written, whatever the file.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FAILED = -1
RETRY_AFTER_S = 30.0


class FileTarget:
    """A target that writes to `descriptor`, which it does not close.

    `error` is why writing failed, None as long as it works: OutOfSpace, or the system's error.
    """

    def __init__(self, descriptor: int, stop: Stop) -> None:
        self._descriptor, self._stop = descriptor, stop
        self.error: BaseException | None = None
        self.target = pyvips.TargetCustom()
        self.target.on_write(self._write)
        # TIFF goes back to fill in its directory.
        self.target.on_read(self._read)
        self.target.on_seek(self._seek)

    def _write(self, data: bytes) -> int:
        if self._stop.stopped:
            return FAILED
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self.error = out_of_space(error) or error
            return FAILED

    def _read(self, count: int) -> bytes:
        return os.read(self._descriptor, count)

    def _seek(self, offset: int, whence: int) -> int:
        return os.lseek(self._descriptor, offset, whence)


def out_of_space(error: OSError) -> OutOfSpace | None:
    """The error for a disk that is full; None for other failures."""
    if error.errno not in FULL:
        return None
    reason = os.strerror(error.errno or 0)
    return OutOfSpace(
        f"the server cannot write its temporary files: {reason}; try again later", retry_after_s=RETRY_AFTER_S
    )
