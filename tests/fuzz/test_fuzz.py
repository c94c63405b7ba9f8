"""A short run of the fuzzer, and every case that once found something."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.frames import END_HEADERS, HEADERS, PREFACE, SETTINGS, conversation, frame, header
from tests.fuzz.messages import Method, request
from tests.fuzz.target import Target, methods, running

SEEDS = sorted((Path(__file__).parent / "seeds").glob("*.json"))
METHODS = methods()
FEW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running(tmp_path_factory.mktemp("fuzz")) as target:
        yield target
        target.check()


@pytest.mark.parametrize("method", METHODS, ids=[method.path.rpartition("/")[2] for method in METHODS])
@FEW
@given(data=st.data())
def test_no_message_is_the_servers_fault(target: Target, method: Method, data: st.DataObject) -> None:
    target.call(method, data.draw(request(method)))


@FEW
@given(sent=conversation(tuple(method.path for method in METHODS)))
def test_no_bytes_on_a_connection_end_the_server(target: Target, sent: bytes) -> None:
    target.write(sent)


def test_no_client_writes_lines_of_the_log(target: Target) -> None:
    """gRPC's own log of what it cannot parse would have the bytes as they came; `check` reads every line."""
    lines = b'\n{"level": "error"}\n'
    headers = header(b":method", b"POST") + header(b":path", lines) + header(b"te", lines)
    target.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, headers))
    target.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(99, 0, 0, lines))
    target.check()


@pytest.mark.parametrize("path", SEEDS, ids=[path.stem for path in SEEDS])
def test_what_once_found_something_finds_nothing(target: Target, path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    messages = [bytes.fromhex(data) for data in case["messages"]]
    if case["kind"] == "frames":
        target.write(messages[0])
    else:
        target.call(next(method for method in METHODS if method.path == case["path"]), messages)
    target.check()
