"""What happens to the engines of a server: logged, and what makes a model unavailable, or available again, is passed on."""

from __future__ import annotations

from collections.abc import Callable

from runtime.healing import Event
from server.logs import log


def log_event(event: Event) -> None:
    """Log an event of a model's engines. May be called from any thread."""
    say = log.info if event.serving and not event.what.endswith(("failed", "out")) else log.warning
    say(
        event.what, model=event.model, device=event.device, reason=event.reason, model_available=event.serving
    )


class EngineEvents:
    """Takes the events of all engines of a server, from any thread.

    changed: called when a model can no longer be served, or can be again.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._unavailable: set[str] = set()

    def __call__(self, event: Event) -> None:
        log_event(event)
        if event.serving == (event.model in self._unavailable):
            (self._unavailable.discard if event.serving else self._unavailable.add)(event.model)
            self.changed()
