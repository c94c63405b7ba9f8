"""What reading and writing clips needs, all of it with PyAV: server/client/moving_pictures.py imports this when it must."""

from __future__ import annotations

import av

from server.client.moving.clip_encoding import CODECS, encoding_for
from server.client.moving.clip_file import check_streams
from server.client.moving.clip_sink import ClipSink
from server.client.moving.clip_source import ClipSource

FFMPEG = f"{av.__version__} {av.ffmpeg_version_info}"

__all__ = ["CODECS", "FFMPEG", "ClipSink", "ClipSource", "check_streams", "encoding_for"]
