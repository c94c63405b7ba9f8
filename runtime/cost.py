"""Cost: what one request needs, known before any of its pixels is decoded.

runtime/picture_work.py and runtime/sample_work.py know pixels and bytes from the request and the file's header,
runtime/estimates.py adds the seconds. runtime/admission.py admits, queues or refuses by it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one request needs while it runs.

    pixels: that the device will compute. memory_bytes: upper bound of its memory, its answer included. disk_bytes: upper
    bound of its temporary files. field: the request's field that made it so large, for the message of a refusal.
    device_s, codec_s: estimated seconds of the whole device and of all codec threads; 0 if unknown.
    latency_s: estimated seconds that the request takes on an idle server beyond the longer of the two, because not all of
    its steps overlap.
    """

    pixels: int
    memory_bytes: int
    disk_bytes: int = 0
    device_s: float = 0.0
    codec_s: float = 0.0
    latency_s: float = 0.0
    field: str = "image"

    @property
    def work_s(self) -> float:
        """Estimated seconds for which it keeps the server busy: the device or the codec threads, whichever takes longer."""
        return max(self.device_s, self.codec_s)

    @property
    def alone_s(self) -> float:
        """Estimated seconds until the answer of this request on an idle server."""
        return self.work_s + self.latency_s
