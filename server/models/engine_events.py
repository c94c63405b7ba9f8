"""What happens to the engines of a server: logged, and what makes a model unavailable, or available again, is passed on."""

from __future__ import annotations

from collections.abc import Callable

from runtime.healing import Event
from server.logs import log

# Events to warn of, though the model may still be served (runtime/replicas.py).
TROUBLES = ("engine failed", "device out")


def log_event(event: Event) -> None:
    """Log an event of a model's engines. May be called from any thread."""
    is_trouble = not event.serving or event.what in TROUBLES
    write = log.warning if is_trouble else log.info
    write(
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
        was_serving = event.model not in self._unavailable
        if event.serving == was_serving:
            return
        if event.serving:
            self._unavailable.discard(event.model)
        else:
            self._unavailable.add(event.model)
        self.changed()
