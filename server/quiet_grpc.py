"""Keeps gRPC's C++ core from writing to stderr; importing it is enough, if that is before the first import of grpc.

Its lines would come between those of our logs, which are JSON, and say nothing that we do not: a failed handshake of a
port scanner would be one. It also logs bytes that it cannot parse as they came, line breaks included, so a client could
write lines of our log. GRPC_VERBOSITY=INFO brings them back. The commands import it; the client, as a library, does not.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
