"""What is logged and reported when an engine fails, is replaced, or nothing can replace it."""

from __future__ import annotations

from runtime.healing import Event
from server.logs import log


def log_event(event: Event) -> None:
    """Log an event of a model's engines. May be called from any thread."""
    say = log.info if event.serving and not event.what.endswith(("failed", "out")) else log.warning
    say(
        event.what, model=event.model, device=event.device, reason=event.reason, model_available=event.serving
    )
