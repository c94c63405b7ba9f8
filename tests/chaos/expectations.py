"""What must happen in each trouble, as data: what the caller sees, what the log says, what is true afterwards.

tests/chaos/cells.py runs the troubles and compares with the rows of EXPECTATIONS. A row holds for every call; OF_CALL has the
exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

CALLS = ("Upscale", "UpscaleStream", "Translate", "Generate")
LOADS = ("quiet", "loaded")
Flavour = Literal["plain", "small disk", "moved clock", "few files"]

# Codes of google.rpc, and what else a caller may see.
KILLED = "killed"
ENDED = "ended by the server"


@dataclass(frozen=True)
class Expectation:
    """What must happen in a trouble.

    sentence: the promise, for people. caller: any of these outcomes. log: any of these codes in the line of the call; empty
    if there need be no line. other_callers: the outcomes that callers of other requests may see meanwhile.
    flavour: the server that it needs. server_errors: whether the server may log errors: of a trouble that is its own.
    restarts: the process ends in it.
    Afterwards in every trouble: the next request is answered with the same bytes as before, no file is left in the
    folder for temporary files, memory and open files are as before, and no call is counted as open.
    """

    sentence: str
    caller: frozenset[str]
    log: frozenset[str] = frozenset()
    other_callers: frozenset[str] = frozenset({"OK"})
    flavour: Flavour = "plain"
    server_errors: bool = False
    restarts: bool = False


def _any(*codes: str) -> frozenset[str]:
    return frozenset(codes)


EXPECTATIONS = {
    "cancel": Expectation(
        "A cancelled call ends at once, and its remaining work is dropped.",
        _any("CANCELLED"),
        _any("CANCELLED"),
    ),
    "deadline": Expectation(
        "A call ends at its deadline, or is refused if it cannot meet it.",
        _any("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"),
        _any("DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED"),
    ),
    "client killed": Expectation(
        "The work of a client that dies is dropped.", _any(KILLED), _any("CANCELLED")
    ),
    "slow reader": Expectation(
        "A caller that does not read its answer loses it after --idle-s and its bytes at --min-rate-bytes-s.",
        _any(ENDED),
        _any("DEADLINE_EXCEEDED", "CANCELLED"),
    ),
    "slow writer": Expectation(
        "A caller that stops in the middle of its request is let go after --idle-s.",
        _any(ENDED),
        _any("DEADLINE_EXCEEDED", "CANCELLED"),
    ),
    "engine faults": Expectation(
        "A device that fails once (raises, NaN, out of memory, wrong shape) costs no request: it is run again.",
        _any("OK"),
        _any("OK"),
        server_errors=True,
    ),
    "disk full": Expectation(
        "A request that needs no disk is answered while the disk is full.",
        _any("OK"),
        _any("OK"),
        flavour="small disk",
        server_errors=True,
    ),
    "clock jump": Expectation(
        "A wall clock that jumps by a day, either way, changes nothing.",
        _any("OK"),
        _any("OK"),
        flavour="moved clock",
    ),
    "file limit": Expectation(
        "Clients that are connected are served while others use up the open files; later everybody is, on trying again.",
        _any("OK"),
        _any("OK"),
        other_callers=_any("OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"),
        flavour="few files",
        server_errors=True,
    ),
    "SIGTERM": Expectation(
        "A call that runs at SIGTERM is answered, new ones get UNAVAILABLE, and the process ends with 0.",
        _any("OK"),
        _any("OK"),
        other_callers=_any("OK", "UNAVAILABLE"),
        restarts=True,
    ),
    "SIGKILL": Expectation(
        "Callers of a server that is killed get UNAVAILABLE; the next one starts clean, without the old one's files.",
        _any("UNAVAILABLE"),
        other_callers=_any("OK", "UNAVAILABLE"),
        restarts=True,
    ),
}

# (trouble, call) → what differs there.
OF_CALL = {
    # It is spooled to the disk.
    ("disk full", "UpscaleStream"): replace(
        EXPECTATIONS["disk full"],
        sentence="A request that does not fit on the disk gets RESOURCE_EXHAUSTED, and its files are removed.",
        caller=_any("RESOURCE_EXHAUSTED"),
        log=_any("RESOURCE_EXHAUSTED"),
    ),
}


def expectation(trouble: str, call: str) -> Expectation:
    """What must happen to `call` in `trouble`."""
    return OF_CALL.get((trouble, call), EXPECTATIONS[trouble])
