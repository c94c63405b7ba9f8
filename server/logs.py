"""Structured logs: one line an event on stderr, key=value on a terminal and JSON elsewhere.

`python -m server` calls `configure` once; server/calls.py writes one line a call, with its request id.
"""

from __future__ import annotations

import sys
from typing import Any

import structlog


def configure() -> None:
    """Set up structlog for this process."""
    terminal = sys.stderr.isatty()
    render: list[Any] = (
        [structlog.dev.ConsoleRenderer()]
        if terminal
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
            *render,
        ],
        # Looked up at each line, so that a test's captured stderr is written to and not a closed one.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


log: structlog.stdlib.BoundLogger = structlog.get_logger()
