"""The cache of TensorRT plans compiled on this machine, in the user's cache folder.

tensorrt_loading.py looks here if no plan of the bundle fits, and stores the plans that it compiles. A plan is executable
code, so the folder is private to the user, and a plan whose hash differs from the index is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from runtime.errors import EngineError
from runtime.files import atomic_write
from runtime.manifest import EngineFile

INDEX = "index.json"
LOCK = "lock"
MAX_PLANS = 32


def default_folder() -> Path:
    """The user's cache folder for ganforge: on Linux $XDG_CACHE_HOME/ganforge, else ~/.cache/ganforge."""
    return user_cache_path("ganforge", appauthor=False)


class PlanCache:
    """A private folder of plans with an index of their hashes. Keeps the MAX_PLANS newest plans.

    Raises EngineError if the folder belongs to another user.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if status.st_uid != os.geteuid():
            raise EngineError(
                f"{folder} belongs to another user; plans are code, so set XDG_CACHE_HOME to your own"
            )
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)

    def get(self, wanted: EngineFile) -> tuple[bytes | None, str]:
        """The plan compiled for exactly `wanted`, and a description of its source; or None, and the reason."""
        key = _key(wanted)
        expected = self._index().get(key)
        path = self.folder / f"{key}.plan"
        if expected is None or path.is_symlink() or not path.is_file():
            return None, f"no plan in {self.folder} fits"
        plan = path.read_bytes()
        if hashlib.sha256(plan).hexdigest() != expected:
            return None, f"{path} was altered since it was written and is not used"
        return plan, f"plan from {path}"

    def put(self, wanted: EngineFile, plan: bytes) -> Path:
        """Store a plan. Returns the file's path."""
        key = _key(wanted)
        path = self.folder / f"{key}.plan"
        with FileLock(self.folder / LOCK):
            _write(path, plan)
            index = self._index()
            index.pop(key, None)
            index[key] = hashlib.sha256(plan).hexdigest()
            for old in list(index)[:-MAX_PLANS]:
                del index[old]
                (self.folder / f"{old}.plan").unlink(missing_ok=True)
            _write(self.folder / INDEX, json.dumps(index, indent=2).encode())
        return path

    def _index(self) -> dict[str, str]:
        """Key → sha256, oldest first. A damaged index counts as empty, so the plans are compiled again."""
        try:
            raw = json.loads((self.folder / INDEX).read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(key): str(digest) for key, digest in raw.items()} if isinstance(raw, dict) else {}


def _key(wanted: EngineFile) -> str:
    entry = asdict(wanted)
    del entry["path"]
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    return f"{wanted.library}-{wanted.library_version}-{wanted.compute_capability}-{digest[:16]}"


def _write(path: Path, data: bytes) -> None:
    """Write atomically, readable only by this user."""
    with atomic_write(path, mode=0o600) as unfinished:
        unfinished.write_bytes(data)
