"""What becomes of an item whose batch failed: it runs again, here or on another way, or its request fails.

    in a batch of several        alone, on the same way: another item may be the bad one
    alone, and the engine fails
      on a good input too        on the engine that replaces it
    alone, and the engine is
      well: the first time       once more on the same way
            the second time      on the next way (a wider precision, another backend)
    in a batch that hung         alone, on the engine that replaces it; after a second hang alone its request fails
    after the last way           the request fails, with all that was tried

runtime/scheduler.py calls `again` for each failed item and queues what it returns.
"""

from __future__ import annotations

from runtime.errors import EngineError, NotReady
from runtime.healing import HealingEngine, OpenEngine
from runtime.jobs import BatchItem, Failure

# No item runs more often, whatever fails.
MOST_RUNS = 8
MOST_HANGS = 2


def again(item: BatchItem, failure: Failure, *, condemned: bool) -> BatchItem:
    """The item for its next run. condemned: whether its engine was replaced: the failure is then not the item's own.

    Raises EngineError if it has failed too often.
    """
    after = item._replace(failures=(*item.failures, failure))
    hangs = sum(each.hung and each.alone for each in after.failures)
    if len(after.failures) >= MOST_RUNS or hangs >= MOST_HANGS:
        raise EngineError(_sentence(after, f"it was given up after {len(after.failures)} runs"))
    own_before = any(each.alone and not each.hung and each.way == failure.way for each in item.failures)
    if failure.alone and not condemned and own_before:
        after = after._replace(way=failure.way + 1)
    return after


def hopeless(item: BatchItem) -> Exception | None:
    """The error of an item that cannot run any more; None if it can.

    NotReady if no device can run the model now, EngineError if the item failed on every way.
    """
    engine = item.job.engine
    if not isinstance(engine, HealingEngine):
        return None
    if (reason := engine.unavailable) is not None:
        return NotReady(f"{engine.manifest.name} is unavailable: {reason}; try again later")
    reason = engine.hopeless(item.way)
    return None if reason is None else EngineError(_sentence(item, reason))


def recovered(item: BatchItem, engine: OpenEngine) -> tuple[str, str]:
    """What saved an item that failed before: for the answer's Timing, and as counted in `Stats.retries`."""
    if engine.way:
        return engine.label, engine.step
    if all(failure.device != engine.device for failure in item.failures):
        return f"retried on another device, {engine.device}", "another device"
    return (f"retried on {engine.label}", engine.step) if engine.label else ("retried", "same engine")


def _sentence(item: BatchItem, ending: str) -> str:
    engine = item.job.engine
    assert isinstance(engine, HealingEngine)
    reasons = dict.fromkeys((*(failure.reason for failure in item.failures), ending))
    return f"{engine.manifest.name}: a part of the request failed in every engine: " + "; ".join(
        filter(None, reasons)
    )
