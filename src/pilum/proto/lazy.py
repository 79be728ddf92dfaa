"""Message modules that load when the first of their names is used.

``import pilum`` must not pay for protobuf and its descriptors (60 ms); modules that use messages in many functions,
or messages that few files have, import the stand-ins from here.  `pilum.proto` itself cannot give them: a generated
module must find those it builds on loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports

__all__ = ["array_encodings_pb2", "file_pb2", "legacy_file_pb2", "planar_pb2", "table_pb2", "wire"]

if TYPE_CHECKING:
    from google.protobuf import message as wire

    from pilum.proto import array_encodings_pb2, file_pb2, legacy_file_pb2, planar_pb2, table_pb2
else:
    array_encodings_pb2 = imports.LateModule("pilum.proto.array_encodings_pb2")
    file_pb2 = imports.LateModule("pilum.proto.file_pb2")
    legacy_file_pb2 = imports.LateModule("pilum.proto.legacy_file_pb2")
    planar_pb2 = imports.LateModule("pilum.proto.planar_pb2")
    table_pb2 = imports.LateModule("pilum.proto.table_pb2")
    wire = imports.LateModule("google.protobuf.message")  # has DecodeError
