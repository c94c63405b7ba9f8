"""All errors that ganforge raises on purpose, in one tree. Every package raises them.

server/codes.py maps them to status codes, and the client raises the same errors for failed calls.

GanforgeError
├── InvalidInput        an input is wrong; retrying without a change cannot work
├── ModelNotFound       no bundle of that name is served
├── Unauthenticated     the caller's token is missing or wrong
├── PermissionDenied    the caller may not do this
├── Overloaded          the queue is full or cannot meet the deadline; try again after `retry_after_s`
│   └── OutOfSpace      the server's disk is full
├── NotReady            the server is warming up or draining; try again shortly
├── DeadlineExceeded    the caller's deadline passed, or could not be met even by an idle server
├── Cancelled           the caller went away
├── BundleError         a bundle is incomplete, altered or of another format
├── BackendUnavailable  an engine cannot run here: a library, a device or a capability is missing
└── EngineError         an engine failed, or its output was not finite

A message names the field, file or model, the value, what was expected and, if it helps, what to do.
"""

from __future__ import annotations


class GanforgeError(Exception):
    """Root of every error that ganforge raises on purpose."""


class InvalidInput(GanforgeError):
    """An input is wrong. `field` names it; the message says what was given and what was expected."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class ModelNotFound(GanforgeError):
    """No bundle of that name is served here."""


class Unauthenticated(GanforgeError):
    """The caller's token is missing or wrong. The same message for both, which never repeats the token."""


class PermissionDenied(GanforgeError):
    """The caller is known and may not do this. The message says what it may do."""


class Overloaded(GanforgeError):
    """The queue is full or cannot meet the deadline.

    retry_after_s: seconds to wait before a retry. reason: the limit that refused it, one word of a small fixed set
    ("queue", "deadline", "calls", "uploads", …); metrics count refusals by it.
    """

    def __init__(self, message: str, *, retry_after_s: float, reason: str = "other") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason


class OutOfSpace(Overloaded):
    """The server cannot write its temporary files: the disk is full. No fault of the caller's, so it is logged as an error."""


class NotReady(GanforgeError):
    """The server is warming up or draining, or cannot be reached. Retry shortly."""


class DeadlineExceeded(GanforgeError):
    """The caller's deadline passed before the answer was ready, or could not be met even by an idle server."""


class Cancelled(GanforgeError):
    """The caller went away; the remaining work was dropped."""


class BundleError(GanforgeError):
    """A bundle is incomplete, altered, or of a format this version does not read."""


class BackendUnavailable(GanforgeError):
    """An engine cannot run on this machine. The message says what is missing and how to get it."""


class EngineError(GanforgeError):
    """An engine failed, or its output was not finite."""
