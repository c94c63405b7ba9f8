"""The log of an unexpected error, on a terminal and in a file: a traceback, without the values of variables."""

from __future__ import annotations

import io
import sys

import pytest
import structlog

from server.logs import configure, log


class Stderr(io.StringIO):
    """What is written to stderr. is_terminal: whether it says that it is one."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


def fail(token: str, picture: bytes) -> None:
    raise ValueError("this should not happen")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_variable_is_shown(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    """Tokens and pictures are in the variables of the functions that fail."""
    token, picture, stderr = "-".join(["very", "secret"]), bytes(range(65, 75)), Stderr(is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    configure()
    try:
        fail(token, picture)
    except ValueError as error:
        log.error("call", exc_info=error)
    finally:
        structlog.reset_defaults()
    written = stderr.getvalue()
    assert "this should not happen" in written
    assert "in fail" in written
    assert token not in written
    assert picture.decode() not in written
