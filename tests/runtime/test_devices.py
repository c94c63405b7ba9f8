"""Which devices a value of --device names."""

from __future__ import annotations

import pytest

from runtime import devices
from runtime.devices import expand
from runtime.errors import BackendUnavailable


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (None, (None,)),
        ("CPU", ("CPU",)),
        ("cuda:0, cuda:1", ("cuda:0", "cuda:1")),
        ("cuda:all", ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda:all,CPU", ("cuda:0", "cuda:1", "cuda:2", "CPU")),
    ],
)
def test_devices(
    device: str | None, expected: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 3)
    assert expand(device) == expected


@pytest.mark.parametrize("device", ["", "cuda:0,", "cuda:0,CUDA:0", "cuda:all"])
def test_devices_that_make_no_sense(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    with pytest.raises(BackendUnavailable, match="--device"):
        expand(device)
