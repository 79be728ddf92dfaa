"""Arrow extension types at the edge: taken apart when stored, put together when returned.

The format knows storage types plus two metadata keys; Arrow has extension types.  Types defined
in Python say their parameters (`__arrow_ext_serialize__`), those built into Arrow do not, so the
parameters are read from the C data interface, which spells every extension type as exactly these
two keys::

    struct ArrowSchema { format*, name*, metadata*, ... }      metadata: i32 n, n × (i32 len, bytes) × 2

Must not know: fields, logical types.
"""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import Any

import pyarrow as pa

__all__ = ["extension_parameters", "with_extensions"]


class _ArrowSchema(ctypes.Structure):
    """The first members of the C struct; the rest is not needed."""

    _fields_ = (("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_void_p))


def extension_parameters(arrow_type: Any) -> bytes:
    """The serialized parameters of an extension type (``ARROW:extension:metadata``)."""
    serialize = getattr(arrow_type, "__arrow_ext_serialize__", None)
    if serialize is not None:  # types defined in Python need not be hashable
        return bytes(serialize())
    return _exported_parameters(arrow_type)


@lru_cache(maxsize=256)
def _exported_parameters(arrow_type: Any) -> bytes:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    capsule = pa.field("", arrow_type).__arrow_c_schema__()  # owns the memory until it is collected
    address = _ArrowSchema.from_address(get_pointer(capsule, b"arrow_schema")).metadata
    return _pairs(address).get(b"ARROW:extension:metadata", b"")


def _pairs(address: int | None) -> dict[bytes, bytes]:
    if not address:
        return {}
    position = address

    def take(size: int) -> bytes:
        nonlocal position
        position += size
        return ctypes.string_at(position - size, size)

    def take_text() -> bytes:
        return take(struct.unpack("=i", take(4))[0])

    (count,) = struct.unpack("=i", take(4))
    return {take_text(): take_text() for _ in range(count)}


def with_extensions(schema: Any) -> Any:
    """`pa.Schema` with the extension types that its metadata keys name and Arrow has registered.

    Fields of unregistered extension types keep their storage type and metadata, as in the
    reference; so do all if a registered type refuses what a file has under its name.  Works at any depth.
    """
    if not any(field.metadata or field.type.num_fields for field in schema):
        return schema
    # Arrow resolves the keys wherever a schema enters it.
    try:
        return pa.ipc.read_schema(schema.serialize())
    except (TypeError, ValueError):
        return schema
