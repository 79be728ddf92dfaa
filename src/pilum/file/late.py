"""What opening the first file or table of a process imports, all at once (see `pilum.imports`)."""

from __future__ import annotations

from pilum import imports

__all__ = ["prepare"]

_NAMES = (
    "google.protobuf.message",
    "google.protobuf.any_pb2",
    "pilum.proto.file_pb2",
    "pilum.proto.container_pb2",
    "pilum.proto.encodings_pb2",
    "pilum.proto.table_pb2",
)
_ready = False


def prepare() -> None:
    """Import what functions of this room and those below import on their way."""
    global _ready
    if not _ready:
        imports.load_all(_NAMES)
        _ready = True
