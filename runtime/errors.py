"""Every error that ganforge raises on purpose, in one tree. server/codes.py maps them to status codes.

GanforgeError
├── InvalidInput        what the caller gave cannot be used; it will never work as it is
├── ModelNotFound       no bundle of that name is served
├── Overloaded          the queue is full or cannot meet the deadline; try again after `retry_after_s`
├── NotReady            the server is warming up or draining; try again shortly
├── DeadlineExceeded    the caller's time ran out
├── Cancelled           the caller went away
├── BundleError         a bundle is incomplete, altered or of another format
├── BackendUnavailable  an engine cannot run here: a library, a device or a capability is missing
└── EngineError         an engine failed, or gave what it must not give (NaN)

A message says which thing, what came, what was expected and, where it helps, what to do.
"""

from __future__ import annotations


class GanforgeError(Exception):
    """Root of every error that ganforge raises on purpose."""


class InvalidInput(GanforgeError):
    """What the caller gave cannot be used. `field` names it; the message says what came and what was expected."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class ModelNotFound(GanforgeError):
    """No bundle of that name is served here."""


class Overloaded(GanforgeError):
    """The queue is full or cannot meet the deadline. `retry_after_s`: seconds until trying again makes sense."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(GanforgeError):
    """The server is warming up or draining, or cannot be reached. Trying again shortly makes sense."""


class DeadlineExceeded(GanforgeError):
    """The caller's time ran out before the answer was ready."""


class Cancelled(GanforgeError):
    """The caller went away; the remaining work was dropped."""


class BundleError(GanforgeError):
    """A bundle is incomplete, altered, or of a format this version does not read."""


class BackendUnavailable(GanforgeError):
    """An engine cannot run here. The message names what is missing and how to get it."""


class EngineError(GanforgeError):
    """An engine failed, or its output was not finite."""
