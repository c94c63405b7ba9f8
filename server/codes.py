"""How a call ended, in the canonical words of google.rpc.Code, which every front maps to its own protocol.

The core writes the code into its log line; server/statuses.py makes a gRPC status of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime import errors
from runtime.errors import GanforgeError

OK, CANCELLED, INTERNAL = "OK", "CANCELLED", "INTERNAL"
CODES: Mapping[type[GanforgeError], str] = {
    errors.InvalidInput: "INVALID_ARGUMENT",
    errors.ModelNotFound: "NOT_FOUND",
    errors.Overloaded: "RESOURCE_EXHAUSTED",
    errors.NotReady: "UNAVAILABLE",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.Cancelled: CANCELLED,
    errors.BackendUnavailable: "FAILED_PRECONDITION",
    errors.BundleError: "FAILED_PRECONDITION",
    errors.EngineError: INTERNAL,
}


def code_of(error: BaseException) -> str:
    """The code of an error; INTERNAL where it is none of runtime/errors.py."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), INTERNAL)


def message_for_caller(error: BaseException, request_id: str) -> str:
    """What the caller reads. An error that is none of runtime/errors.py shows only where the log has it."""
    if isinstance(error, GanforgeError):
        return str(error)
    return f"an internal error, logged as request {request_id}"
