"""Converts errors of runtime/errors.py to gRPC statuses and back.

server/grpc_front/front.py calls `to_status`; the client calls `from_rpc_error`, so that it raises the server's errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from runtime import errors
from runtime.errors import GanforgeError
from server import codes
from server.printable import printable

# grpc.StatusCode has the names of google.rpc.Code.
CODES: Mapping[type[GanforgeError], grpc.StatusCode] = {
    kind: grpc.StatusCode[name] for kind, name in codes.CODES.items()
}
REQUEST_ID = "x-request-id"
# Metadata key that tells gRPC's retries how many milliseconds to wait.
PUSHBACK = "grpc-retry-pushback-ms"
# Characters. A status is sent in HTTP/2 headers, whose size is limited.
LONGEST_MESSAGE = 1_000

M = TypeVar("M", bound=Message)
Metadata = tuple[tuple[str, str | bytes], ...]


def to_status(error: Exception, request_id: str) -> tuple[grpc.StatusCode, str, Metadata]:
    """The code, message and trailing metadata of a failed call.

    Metadata: the request id, and google.rpc details (BadRequest for InvalidInput, RetryInfo for Overloaded).
    """
    code = grpc.StatusCode[codes.code_of(error)]
    message = printable(codes.message_for_caller(error, request_id))
    message = message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, request_id)]
    if isinstance(error, errors.InvalidInput):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=printable(error.problem[:LONGEST_MESSAGE])
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        metadata.append((PUSHBACK, str(int(error.retry_after_s * 1e3))))
    rich = rpc_status.to_status(status)
    return code, message, (*metadata, *rich.trailing_metadata)


def from_rpc_error(error: grpc.RpcError) -> GanforgeError:
    """The error of runtime/errors.py for a failed call; GanforgeError for a code that none of them has."""
    call = cast(grpc.Call, error)  # a call's error is a grpc.Call too, but grpc's types do not say so
    code, message = call.code(), call.details() or "the server gave no reason"
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        for violation in _detail(call, error_details_pb2.BadRequest()).field_violations:
            return errors.InvalidInput(violation.field, violation.description)
        return errors.InvalidInput("request", message)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        delay = _detail(call, error_details_pb2.RetryInfo()).retry_delay
        return errors.Overloaded(message, retry_after_s=delay.ToNanoseconds() / 1e9)
    kind = next((kind for kind, known in CODES.items() if known == code), None)
    return kind(message) if kind else GanforgeError(f"{code.name}: {message}")


def _detail(call: grpc.Call, empty: M) -> M:
    """The status detail of the type of `empty`; `empty` itself if there is none."""
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # a proxy changed the message, so it differs from the one in the details
        status = None
    for detail in status.details if status else ():
        if detail.Unpack(empty):
            break
    return empty
