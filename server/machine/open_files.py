"""The limit on open files, each connection being one: raised as far as the system allows, and shared out.

`python -m server` calls `raise_limit` at its start. server/grpc_front/front.py refuses connections beyond `most_connections`,
since a server without a free descriptor can neither accept a connection nor open a temporary file.
"""

from __future__ import annotations

import resource
from contextlib import suppress

# Models, threads, the log and the event loop, and three temporary files for each of some large requests.
OTHER_FILES = 128


def raise_limit() -> int:
    """Raise the process's limit on open files to what its user may have. Returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        with suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def most_connections() -> int:
    """How many connections may be open at once."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        limit = 2**20
    return max(limit - max(OTHER_FILES, limit // 4), limit // 4)
