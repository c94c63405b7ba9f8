"""Tables between image format names ("png"), their numbers in protos/ganforge.proto and file name suffixes.

server/grpc_front/messages.py and the client use them; the core knows only names.
"""

from __future__ import annotations

from protos import ganforge_pb2 as pb

NUMBERS: dict[str, pb.ImageFormat] = {
    "png": pb.IMAGE_FORMAT_PNG,
    "jpeg": pb.IMAGE_FORMAT_JPEG,
    "webp": pb.IMAGE_FORMAT_WEBP,
    "tiff": pb.IMAGE_FORMAT_TIFF,
}
NAMES: dict[pb.ImageFormat, str] = {number: name for name, number in NUMBERS.items()}
SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}
