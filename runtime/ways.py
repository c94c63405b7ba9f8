"""Which ways there are to run a bundle on a device when its engine fails, in the order in which they are tried.

    a fresh engine of the same kind ─► a wider precision on the same backend ─► the next backends of PREFERENCE

server/models/opening.py calls `ways` for each engine that it opens; runtime/replicas.py takes them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runtime import backends, bundle
from runtime.backends.base import Engine
from runtime.backends.precisions import WIDEST
from runtime.bundle import Bundle
from runtime.errors import BundleError
from runtime.open_engines import MAX_OPENING_S, Way
from runtime.tensors import Precision

# Opening an engine again may take so many times as long as it took first, but need not be faster than the least.
REOPENING_FACTOR, LEAST_OPENING_S = 10.0, 60.0


def ways(
    engine: Engine,
    *,
    backend: str = "auto",
    device: str | None = None,
    min_precision: Precision | None = None,
    opened_in_s: float = MAX_OPENING_S,
) -> list[Way]:
    """The ways to run an engine's bundle, the engine's own first.

    backend, device, min_precision: what the operator asked for. A backend chosen by name is never left for another, nor a
    device for one of another kind. opened_in_s: how long it took to open and warm up the engine.
    """
    opens = engine.bundle, min_precision
    limit_s = min(MAX_OPENING_S, max(LEAST_OPENING_S, REOPENING_FACTOR * opened_in_s))
    found = [
        Way("a fresh engine", "fresh engine", _opener(*opens, engine.backend, engine.device), limit_s=limit_s)
    ]
    if (wider := engine.wider()) is not None:
        found.append(
            Way(f"{WIDEST} instead of {engine.precision}", "wider precision", _checked(engine.bundle, wider))
        )
    if backend != "auto":
        return found
    for name, place in _next_backends(engine):
        elsewhere = _kind(place) != _kind(engine.device)
        if (elsewhere and device is not None) or backends.load(name).unavailable(
            engine.bundle, place
        ) is not None:
            continue
        label = f"{name} on {place}" if elsewhere else name
        found.append(
            Way(
                f"{label} instead of {engine.backend}",
                "next backend",
                _opener(*opens, name, place),
                elsewhere=elsewhere,
            )
        )
    return found


def _next_backends(engine: Engine) -> Iterator[tuple[str, str]]:
    """(backend, device) of the rows of PREFERENCE below the engine's."""
    rows = [(name, place) for name, place in backends.PREFERENCE]
    own = (engine.backend, next((place for _, place in rows if _kind(place) == _kind(engine.device)), ""))
    for name, place in rows[rows.index(own) + 1 :] if own in rows else ():
        yield name, engine.device if _kind(place) == _kind(engine.device) else place


def _kind(device: str) -> str:
    """ "cuda:1" → "cuda"."""
    return device.partition(":")[0].lower()


def _opener(
    opened: Bundle, min_precision: Precision | None, backend: str, device: str
) -> Callable[[], Engine]:
    def open_again() -> Engine:
        return backends.load(backend).open_engine(opened, device, min_precision=min_precision)

    return _checked(opened, open_again)


def _checked(opened: Bundle, open_again: Callable[[], Engine]) -> Callable[[], Engine]:
    """Before opening, make sure that the bundle's files are still those that are served."""

    def check_and_open() -> Engine:
        if opened.version and (found := bundle.load(opened.path).version) != opened.version:
            raise BundleError(
                f"{opened.path} holds version {found} now, version {opened.version} is served; reload the models"
            )
        return open_again()

    return check_and_open
