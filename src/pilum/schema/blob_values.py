"""Blobs as users hand them over: bytes, or where they lie (`spec/api.md`, section 8).

```
blob_field("picture")              a field of BlobType: struct<data, uri, position, size>
blob_array([b"...", "s3://…"])     an array of that type; each row has bytes or an address, or is null
```

Arrow knows `BlobType` by its name once this module is loaded, unless somebody else has registered one.
Must not know: how blobs are stored (`blobs`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.schema.field import BLOB_V2

__all__ = ["Blob", "BlobArray", "BlobType", "blob_array", "blob_field"]

_STORAGE: Any = pa.struct(
    [("data", pa.large_binary()), ("uri", pa.string()), ("position", pa.uint64()), ("size", pa.uint64())]
)
_MINIMAL: Any = pa.struct([("data", pa.large_binary()), ("uri", pa.string())])
_LARGEST = 2**64 - 1


@dataclass(frozen=True)
class Blob:
    """A blob: bytes, or an address, and possibly a range of what is there.

    Args:
        data: the bytes.
        uri: an address.
        position, size: a range of what is at the address, in bytes; both or neither, and not empty.

    Raises:
        InvalidInputError: (a `ValueError`) both or neither of bytes and address; half a range, or an empty or negative one.

    Example:
        >>> from pilum.blob import Blob
        >>> Blob.from_uri("s3://bucket/film", position=100, size=50)
        Blob(data=None, uri='s3://bucket/film', position=100, size=50)
    """

    data: bytes | None = None
    uri: str | None = None
    position: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.data is not None and self.uri is not None:
            raise InvalidInputError("a blob has bytes or a uri, not both")
        if self.uri == "":
            raise InvalidInputError("the uri of a blob cannot be empty")
        if (self.position is None) != (self.size is None):
            raise InvalidInputError("a range of a blob needs position and size")
        if self.position is not None and self.uri is None:
            raise InvalidInputError("a range of a blob needs a uri")
        if self.position is not None and self.size is not None and min(self.position, self.size) < 0:
            raise InvalidInputError(
                f"the range of a blob begins at {self.position} and has {self.size} bytes; neither may be negative"
            )
        if self.size == 0:
            raise InvalidInputError("the range of a blob is not empty: size must be greater than zero")
        if self.data is None and self.uri is None:
            raise InvalidInputError("a blob needs data or uri; None stands for a null blob")

    @staticmethod
    def from_bytes(data: bytes | bytearray | memoryview) -> Blob:
        """A blob of these bytes, which are copied unless they are `bytes`."""
        return Blob(data=bytes(data))

    @staticmethod
    def from_uri(uri: str, position: int | None = None, size: int | None = None) -> Blob:
        """A blob, or a range of one, that lies at an address."""
        return Blob(uri=uri, position=position, size=size)

    @staticmethod
    def empty() -> Blob:
        """A blob of no bytes, which is not null."""
        return Blob(data=b"")


class BlobArray(pa.ExtensionArray):  # type: ignore[misc]  # pyarrow is untyped
    """An array of `BlobType`; `from_pylist` makes one."""

    @classmethod
    def from_pylist(cls, values: Iterable[Any]) -> BlobArray:
        """An array of bytes-like objects, addresses (`str`), `Blob` and None.

        Raises:
            TypeError: a value of another type.
            InvalidInputError: (a `ValueError`) an empty address.
        """
        blobs = [_blob(value) for value in values]
        columns = [
            arrays.from_python(
                [None if one is None else getattr(one, field.name) for one in blobs], field.type
            )
            for field in _STORAGE
        ]
        mask = arrays.from_python([one is None for one in blobs], pa.bool_())
        storage = pa.StructArray.from_arrays(columns, fields=list(_STORAGE), mask=mask)
        array: BlobArray = pa.ExtensionArray.from_storage(BlobType(), storage)
        return array


class BlobType(pa.ExtensionType):  # type: ignore[misc]  # pyarrow is untyped
    """The Arrow type ``lance.blob.v2``: ``struct<data, uri, position, size>``, or ``struct<data, uri>`` from elsewhere."""

    def __init__(self) -> None:
        super().__init__(_STORAGE, BLOB_V2)

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> BlobType:
        if storage_type.equals(_STORAGE):
            return cls()
        if not storage_type.equals(_MINIMAL):
            raise TypeError(f"a {BLOB_V2} is a {_STORAGE}, or a {_MINIMAL}, not a {storage_type}")
        made = cls.__new__(cls)
        pa.ExtensionType.__init__(made, storage_type, BLOB_V2)
        return made

    def __arrow_ext_class__(self) -> type[BlobArray]:
        return BlobArray


def blob_array(values: Iterable[Any]) -> BlobArray:
    """`BlobArray.from_pylist`.

    Example:
        >>> from pilum.blob import Blob, blob_array
        >>> [row and row["uri"] for row in blob_array([b"bytes", "s3://bucket/film", None]).to_pylist()]
        [None, 's3://bucket/film', None]
    """
    return BlobArray.from_pylist(values)


def blob_field(
    name: str,
    *,
    nullable: bool = True,
    inline_size_threshold: int | None = None,
    dedicated_size_threshold: int | None = None,
    pack_file_size_threshold: int | None = None,
) -> pa.Field:
    """A field of blobs.

    Args:
        name: of the column.
        nullable: whether blobs may be null.
        inline_size_threshold: bytes up to which a blob lies in the data file, 0 or more.
        dedicated_size_threshold: bytes above which a blob has a file of its own, 1 or more.
        pack_file_size_threshold: bytes at which a file of many blobs is followed by another, 1 or more.

    Raises:
        TypeError: a threshold that is no `int`.
        InvalidInputError: (a `ValueError`) a threshold out of range.
    """
    thresholds = (
        ("inline", inline_size_threshold, 0),
        ("dedicated", dedicated_size_threshold, 1),
        ("pack-file", pack_file_size_threshold, 1),
    )
    metadata = {
        f"lance-encoding:blob-{what}-size-threshold": str(_threshold(what, value, least))
        for what, value, least in thresholds
        if value is not None
    }
    return pa.field(name, BlobType(), nullable, metadata or None)


def _threshold(what: str, value: int, least: int) -> int:
    name = f"{what.replace('-', '_')}_size_threshold"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= _LARGEST:
        raise InvalidInputError(f"{name} must be {least} to {_LARGEST}, got {value}")
    return value


def _blob(value: Any) -> Blob | None:
    if value is None:
        return None
    if isinstance(value, str):
        return Blob(uri=value)
    if isinstance(value, bytes | bytearray | memoryview):
        return Blob(data=bytes(value))
    if not isinstance(value, Blob):
        raise TypeError(f"a blob is bytes-like, a str (its uri), a Blob or None, not {type(value).__name__}")
    return value


try:
    pa.register_extension_type(BlobType())
except pa.ArrowKeyError:  # somebody's type of this name, which Arrow keeps
    pass
