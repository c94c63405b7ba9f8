"""Maps errors to the codes of google.rpc.Code ("INVALID_ARGUMENT", …) and to the messages that callers see.

server/core/calls.py writes the code into its log line; server/statuses.py makes a gRPC status of it. A front for another
protocol maps the code to its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime import errors
from runtime.errors import GanforgeError

OK, CANCELLED, INTERNAL = "OK", "CANCELLED", "INTERNAL"
CODES: Mapping[type[GanforgeError], str] = {
    errors.InvalidInput: "INVALID_ARGUMENT",
    errors.ModelNotFound: "NOT_FOUND",
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.Overloaded: "RESOURCE_EXHAUSTED",
    errors.NotReady: "UNAVAILABLE",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.Cancelled: CANCELLED,
    errors.BackendUnavailable: "FAILED_PRECONDITION",
    errors.BundleError: "FAILED_PRECONDITION",
    errors.EngineError: INTERNAL,
}


def code_of(error: BaseException) -> str:
    """The code of an error; INTERNAL for any error that is not in runtime/errors.py."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), INTERNAL)


def message_for_caller(error: BaseException, request_id: str) -> str:
    """The message for the caller. For an error that is not in runtime/errors.py, only the request id to look up in the log."""
    if isinstance(error, GanforgeError):
        return str(error)
    return f"an internal error, logged as request {request_id}"
