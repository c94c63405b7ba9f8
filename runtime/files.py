"""Atomic file writes and file hashes. Bundles, the plan cache and everything in export/ write through `atomic_write`."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Ends the name of a file or folder that is still being written.
UNFINISHED_SUFFIX = ".part"


@contextmanager
def atomic_write(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Write `path` completely or not at all: yields a temporary path, which is renamed to `path` when the block ends.

    The temporary file is empty, hidden and in the same folder. If the block raises, it is deleted and `path` stays as
    it was. The data is synced to disk before the rename, so a power failure leaves no empty file.

    mode: permission bits of the file; None: an existing file keeps its own, a new one gets the default ones.

        with atomic_write(path) as unfinished:
            unfinished.write_text(text)
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED_SUFFIX}")
    unfinished.touch(exist_ok=False)
    try:
        if mode is None:
            mode = (path if path.exists() else unfinished).stat().st_mode & 0o777
        unfinished.chmod(mode)
        yield unfinished
        unfinished.chmod(mode)  # safetensors puts a file of its own in its place, which nobody else may read
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with `atomic_write`."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
