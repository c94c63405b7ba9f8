"""The generated modules are current."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protos import compile as protos

GENERATED = ("ganforge_pb2.py", "ganforge_pb2.pyi", "ganforge_pb2_grpc.py")


def test_the_generated_modules_are_current(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    protos.compile_protos(tmp_path)
    for name in GENERATED:
        committed = (protos.ROOT / "protos" / name).read_text(encoding="utf-8")
        assert (tmp_path / "protos" / name).read_text(encoding="utf-8") == committed, (
            f"protos/{name} is not what ganforge.proto gives; run python -m protos.compile"
        )


def test_every_field_says_what_it_is() -> None:
    text = (protos.ROOT / protos.PROTO).read_text(encoding="utf-8")
    fields = re.findall(r"^\s+(?:optional |repeated )?\w+ (\w+) = \d+;(.*)$", text, re.MULTILINE)
    assert len(fields) > 50
    assert not [name for name, rest in fields if "//" not in rest]
