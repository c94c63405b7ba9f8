"""Which devices the value of `--device` names. server/models/opening.py opens a model's engine on each of them."""

from __future__ import annotations

from runtime.backends.nvidia_driver import gpu_count
from runtime.errors import BackendUnavailable

ALL_GPUS = "cuda:all"


def expand(device: str | None) -> tuple[str | None, ...]:
    """ "cuda:0,cuda:1" → ("cuda:0", "cuda:1"); "cuda:all" → all GPUs; None → (None,), the fastest available.

    Raises BackendUnavailable if a device is named twice or not at all, or there is no GPU for "cuda:all".
    """
    if device is None:
        return (None,)
    names: list[str] = []
    for name in (part.strip() for part in device.split(",")):
        if name.lower() == ALL_GPUS and not gpu_count():
            raise BackendUnavailable(f"--device {ALL_GPUS}: there is no NVIDIA GPU with a working driver")
        names += [f"cuda:{index}" for index in range(gpu_count())] if name.lower() == ALL_GPUS else [name]
    if not all(names) or len({name.lower() for name in names}) < len(names):
        raise BackendUnavailable(
            f"--device: got {device!r}, expected different devices separated by commas, e.g. cuda:0,cuda:1, or {ALL_GPUS}"
        )
    return tuple(names)
