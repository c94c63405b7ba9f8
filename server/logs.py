"""Structured logs on stderr: one line per event, as key=value on a terminal and as JSON elsewhere.

`python -m server` calls `configure` once. It logs start and stop with `log`, and server/core/calls.py logs one line per call.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from server.printable import printable


def configure() -> None:
    """Set up structlog for this process."""
    terminal = sys.stderr.isatty()
    render: list[Any] = (
        # A plain traceback: structlog's own would show local variables, which hold what clients sent.
        [_escape, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if terminal
        else [
            structlog.processors.format_exc_info,
            _escape,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
            *render,
        ],
        # Look up sys.stderr for each line, because tests replace it.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _escape(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor that escapes what callers wrote, except the lines of tracebacks, which JSON escapes."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable(value, keep="\n" if key == "exception" else "")
    return event


log: structlog.stdlib.BoundLogger = structlog.get_logger()
