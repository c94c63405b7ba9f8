"""The Python client of a ganforge server.

    from server.client import Client

    with Client("127.0.0.1:50051") as client:
        photo = client.upscale(Path("photo.jpg"), outscale=2, format="png")
        Path("photo-x2.png").write_bytes(photo.image)
        samples = client.generate(16, seed=7, labels=["horse"]).images

Calls return ImageResult or SamplesResult. Errors of client and server alike are raised as those of runtime/errors.py.
The client needs the base installation only: gRPC and protobuf, but neither NumPy nor an engine.
"""

from __future__ import annotations

from server.client.connection import DEFAULT_ADDRESS, Client
from server.client.image_calls import STREAM_FROM_BYTES
from server.client.results import ImageResult, SamplesResult

__all__ = ["DEFAULT_ADDRESS", "STREAM_FROM_BYTES", "Client", "ImageResult", "SamplesResult"]
