"""The folder of bundles as it is now: which folders in it hold a bundle, and whether their files changed.

server/models/reloading.py looks at it every second with --watch, so it asks only for the status of files and reads none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runtime.bundle import MANIFEST, parse_manifest
from runtime.errors import BundleError

# Path, inode, size and time of change of each file of a bundle.
Identity = tuple[tuple[str, int, int, int], ...]


def look(folder: Path) -> Mapping[Path, Identity]:
    """The folders directly inside `folder` that have a manifest, sorted by name, and the identity of their content.

    Copying, replacing or editing any of a bundle's files changes its identity.
    Raises BundleError if something cannot be looked at: that must not be taken for a folder that was removed.
    """
    try:
        paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        return {path: identity for path in paths if (identity := _identity(path)) is not None}
    except OSError as error:
        raise BundleError(f"{folder} cannot be read, so the models stay as they are: {error}") from error


def name_of(path: Path) -> str:
    """The name of the bundle at `path`, of which nothing else is checked; "" if its manifest cannot be read."""
    try:
        return parse_manifest((path / MANIFEST).read_text(encoding="utf-8")).name
    except (BundleError, OSError, ValueError):
        return ""


def _identity(path: Path) -> Identity | None:
    """None if it is no bundle, or is being moved or deleted at this moment."""
    files = []
    try:
        if not (path / MANIFEST).is_file():
            return None
        for root, _, names in os.walk(path, onerror=_fail):
            for name in names:
                status = os.stat(os.path.join(root, name))
                files.append((os.path.join(root, name), status.st_ino, status.st_size, status.st_mtime_ns))
    except FileNotFoundError:
        return None
    return tuple(sorted(files))


def _fail(error: OSError) -> None:
    raise error
