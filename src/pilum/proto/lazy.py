"""Message modules that load when the first of their names is used.

``import pilum`` must not pay for protobuf and its descriptors (60 ms); modules that use messages in many functions
import the stand-ins from here.  A name that was used once is kept, and costs what it costs on a module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pilum import imports

__all__ = ["file_pb2", "table_pb2", "wire"]

if TYPE_CHECKING:
    from google.protobuf import message as wire

    from pilum.proto import file_pb2, table_pb2
else:

    class _Later:
        """Stands for a module until somebody asks for one of its names."""

        def __init__(self, module: str) -> None:
            self._module = module

        def __getattr__(self, name: str) -> Any:
            value = getattr(imports.load(self._module), name)
            setattr(self, name, value)
            return value

    file_pb2 = _Later("pilum.proto.file_pb2")
    table_pb2 = _Later("pilum.proto.table_pb2")
    # Has DecodeError.
    wire = _Later("google.protobuf.message")
