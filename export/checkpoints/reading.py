"""Opens a checkpoint file without running code from it.

The first bytes decide what a file is, not its suffix. Only files of torch.save and safetensors are parsed; pickles are read
by torch's restricted unpickler (`weights_only`), which makes nothing but tensors and plain values. `identification` and
`checkpoint.read` call `open_file` and get a CheckpointFile.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

from export.checkpoints.unsupported import (
    EXPECTED,
    HEAD_BYTES,
    ITS_CHECKPOINT,
    UnsupportedCheckpoint,
    refuse_bytes,
)
from runtime.errors import InvalidInput

ZIP = b"PK\x03\x04"
# torch.save's magic number, pickled at the start of files that PyTorch before 1.6 wrote.
LEGACY = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
# A safetensors file begins with the length of its JSON header. The format allows at most this.
MAX_HEADER_BYTES = 100_000_000
SAVE_AGAIN = "save what its state_dict() gives, with torch.save or as .safetensors"


@dataclass(frozen=True)
class CheckpointFile:
    """An opened file.

    format: what kind of file it is, in words. content: tensors by name, or nested dictionaries of them.
    metadata: the text entries in a safetensors file's header; empty for other files.
    """

    path: Path
    format: str
    content: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)


def open_file(path: Path) -> CheckpointFile:
    """Read `path` onto the CPU. Raises InvalidInput; UnsupportedCheckpoint if it is recognised as another kind of file."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise InvalidInput("weights", f"{path.name} cannot be read: {error.strerror}") from error
    if not head:
        raise InvalidInput("weights", f"{path.name} cannot be read: it is empty")
    if is_safetensors(head):
        return read_safetensors(path)
    if head.startswith(ZIP):
        refuse_archives(path)
        return read_pickle(path, "PyTorch")
    if LEGACY in head[:32]:
        return read_pickle(path, "PyTorch, before 1.6")
    if re.match(rb"\x80[\x02-\x05]", head):
        raise UnsupportedCheckpoint(
            path, "a Python pickle that torch.save did not write", (f"its bytes {head[:2]!r}",),
            f"nothing of it was run; {SAVE_AGAIN}",
        )  # fmt: skip
    refuse_bytes(path, head)
    guess = f" (an ncnn network's weights? {ITS_CHECKPOINT})" if path.suffix == ".bin" else ""
    raise InvalidInput(
        "weights", f"{path.name} cannot be read: its bytes are of no kind known here{guess}; {EXPECTED}"
    )


def is_safetensors(head: bytes) -> bool:
    return 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES and head[8:9] == b"{"


def read_safetensors(path: Path) -> CheckpointFile:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return CheckpointFile(path, "safetensors", load_file(path), metadata)
    except Exception as error:  # SafetensorError, OSError and others
        raise InvalidInput("weights", f"{path.name} cannot be read: {error}") from error


def refuse_archives(path: Path) -> None:
    """Raises InvalidInput if a zip file is damaged, UnsupportedCheckpoint if torch.save did not write it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises many types for a damaged table of contents
        raise InvalidInput(
            "weights", f"{path.name} cannot be read: it is damaged or cut short ({error}); fetch it again"
        ) from error
    inside = {name.partition("/")[2] for name in names}
    if scripted := sorted(name for name in inside if name == "constants.pkl" or name.startswith("code/")):
        raise UnsupportedCheckpoint(
            path, "a TorchScript archive, which holds code", tuple(scripted[:2]), ITS_CHECKPOINT
        )
    if "data.pkl" not in inside:
        raise UnsupportedCheckpoint(
            path, "a zip archive of other files", tuple(names[:3]) or ("no file in it",), EXPECTED
        )


def read_pickle(path: Path, format: str) -> CheckpointFile:
    try:
        with path.open("rb") as file:  # given a path, torch would read *.safetensors as safetensors
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many types for damaged bytes
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UnsupportedCheckpoint(
                path, "a pickle that asks for code", (refused[1],), f"nothing of it was run; {SAVE_AGAIN}"
            ) from error
        last_line = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
        raise InvalidInput(
            "weights", f"{path.name} cannot be read: {last_line or type(error).__name__}"
        ) from error
    if not isinstance(content, Mapping):
        raise InvalidInput(
            "weights",
            f"{path.name}: expected a state dict of tensors, got a {type(content).__name__}; {SAVE_AGAIN}",
        )
    return CheckpointFile(path, format, content)
