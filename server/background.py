"""Runs blocking work on a thread of its own that does not keep the process from exiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_background(name: str, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> Future[T]:
    """Start `work` on a daemon thread called `name`; its outcome is the future's. Cancelling the future does not stop it."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work(*args, **options))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
