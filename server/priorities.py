"""Table between the names of priorities ("batch") and their numbers in protos/ganforge.proto.

server/grpc_front/messages.py and the client use it; the core knows only names.
"""

from __future__ import annotations

from protos import ganforge_pb2 as pb
from runtime.shares import Priority

NUMBERS: dict[Priority, pb.Priority] = {
    "interactive": pb.PRIORITY_INTERACTIVE,
    "batch": pb.PRIORITY_BATCH,
}
NAMES: dict[pb.Priority, Priority] = {number: name for name, number in NUMBERS.items()}
