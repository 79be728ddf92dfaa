"""Descriptors of blobs: where bytes lie that a column of blobs refers to (`spec/api.md`, section 8).

```
blob writers ─► BlobDescriptor ─┐
bytes, ids, paths ──────────────┴─► BlobDescriptorArrayBuilder ─► array of prepared blobs ─► LanceFileWriter
```

What the members of a prepared blob mean for each kind is told in `pilum.encoding.prepared_blobs`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding.prepared_blobs import DEDICATED, INLINE, MANAGED, MANAGED_IN_BASE, PACKED
from pilum.errors import InvalidInputError
from pilum.schema import PREPARED_BLOB, prepared_field

__all__ = ["BlobDescriptor", "BlobDescriptorArrayBuilder", "blob_bytes", "check_id", "packed_array"]

Words = npt.NDArray[np.uint64]
_LARGEST = 2**64 - 1
_LARGEST_ID = 2**32 - 1
_MEMBERS = [member.name for member in PREPARED_BLOB]


@dataclass(frozen=True, slots=True, repr=False)
class BlobDescriptor:
    """Where the bytes of a blob lie.  Made by blob writers; `BlobDescriptorArrayBuilder` takes them.

    Attributes:
        kind: 0 to 5 (`pilum.encoding.prepared_blobs`); None for a null blob.
        data: the bytes of an inline blob.
        uri: where a managed blob lies.
        blob_id: of the file beside the data file, or of the base path of a managed blob.
        blob_size, position: a range, in bytes.
    """

    kind: int | None = None
    data: bytes | None = None
    uri: str | None = None
    blob_id: int | None = None
    blob_size: int | None = None
    position: int | None = None

    def __repr__(self) -> str:
        if self.kind is None:
            return "Null"
        if self.kind == PACKED:
            return f"Packed {{ blob_id: {self.blob_id}, offset: {self.position}, size: {self.blob_size} }}"
        if self.kind == DEDICATED:
            return f"Dedicated {{ blob_id: {self.blob_id}, size: {self.blob_size} }}"
        if self.kind == INLINE:
            return f"Inline {{ size: {len(self.data or b'')} }}"
        return f"Managed {{ uri: {self.uri!r}, offset: {self.position}, size: {self.blob_size}, base_id: {self.blob_id} }}"


_NULL = BlobDescriptor()


class BlobDescriptorArrayBuilder:
    """Collects descriptors, row by row, for a column of blobs in a data file.

    Args:
        column: name of the column.

    Example:
        >>> from pilum.blob import BlobDescriptorArrayBuilder
        >>> builder = BlobDescriptorArrayBuilder("picture")
        >>> builder.append_inline(b"small")
        >>> builder.append_null()
        >>> builder.extend_packed(1, offsets=[0, 10], sizes=[10, 20])
        >>> column = builder.finish()
        >>> len(column), builder.field.name
        (4, 'picture')
    """

    __slots__ = ("_column", "_finished", "_parts", "_rows")

    def __init__(self, column: str) -> None:
        if not isinstance(column, str):
            raise TypeError(f"the name of a column is a str, not {type(column).__name__}")
        self._column = column
        self._parts: list[pa.StructArray] = []
        self._rows: list[BlobDescriptor] = []  # those after the parts
        self._finished = False

    @property
    def field(self) -> pa.Field:
        """The field of the column, of extension type ``lance.blob.v2``; goes into the schema of a file."""
        return prepared_field(self._column)

    def append(self, value: BlobDescriptor) -> None:
        """Append a descriptor that a blob writer returned."""
        self.extend((value,))

    def extend(self, values: Iterable[BlobDescriptor]) -> None:
        """Append descriptors; none of them if one is something else (a `TypeError`)."""
        rows = list(values)
        for value in rows:
            if not isinstance(value, BlobDescriptor):
                raise TypeError(f"a BlobDescriptor is needed, got {type(value).__name__}")
        self._append(rows)

    def append_null(self) -> None:
        """Append a null."""
        self._append([_NULL])

    def append_inline(self, data: Any) -> None:
        """Append bytes that go into the data file itself."""
        self._append([BlobDescriptor(INLINE, data=bytes(blob_bytes(data)))])

    def append_dedicated(self, blob_id: int, size: int) -> None:
        """Append a blob that is a file of its own.

        Args:
            blob_id: id of that file.
            size: its bytes.
        """
        row = BlobDescriptor(DEDICATED, blob_id=check_id(blob_id), blob_size=_number(size, "size"))
        self._append([row])

    def append_managed(self, uri: str, offset: int, size: int, *, base_id: int | None = None) -> None:
        """Append a range of an object that the table keeps.

        Args:
            uri: path of the object below the table, or below the base path ``base_id``.
            offset, size: the range, in bytes; of size 0 for an empty blob.
            base_id: a base path of the table.

        Raises:
            InvalidInputError: (a `ValueError`) not a relative path without detours; a range beyond 2**64 bytes.
        """
        _check_path(uri)
        start, count = _number(offset, "offset"), _number(size, "size")
        if start + count > _LARGEST:
            raise InvalidInputError(f"{count} bytes at {start} end beyond the largest position")
        base = None if base_id is None else _number(base_id, "base_id", _LARGEST_ID)
        kind = MANAGED if base is None else MANAGED_IN_BASE
        self._append([BlobDescriptor(kind, uri=uri, blob_id=base, blob_size=count, position=start)])

    def extend_packed(self, blob_id: int, offsets: Any, sizes: Any) -> None:
        """Append ranges of a file of many blobs.

        Args:
            blob_id: id of that file.
            offsets, sizes: where each blob begins and its bytes: sequences, NumPy or Arrow arrays of whole numbers.

        Raises:
            InvalidInputError: (a `ValueError`) not as many offsets as sizes; negative ones; a range beyond 2**64.
        """
        starts, counts = _numbers(offsets, "offsets"), _numbers(sizes, "sizes")
        if len(starts) != len(counts):
            raise InvalidInputError(
                f"offsets and sizes must have the same length, got {len(starts)} and {len(counts)}"
            )
        if not len(starts):
            self._append([])
            return
        number = check_id(blob_id)
        beyond = np.flatnonzero(counts > np.uint64(_LARGEST) - starts)
        if len(beyond):
            at = int(beyond[0])
            raise InvalidInputError(
                f"{int(counts[at])} bytes at {int(starts[at])} end beyond the largest position"
            )
        self._append([])
        self._flush()
        self._parts.append(packed_array(number, starts, counts))

    def finish(self) -> pa.StructArray:
        """The descriptors as an array of the type of `field`; nothing can be appended any more."""
        self._append([])
        self._finished = True
        self._flush()
        parts, self._parts = self._parts, []
        return pa.concat_arrays(parts) if parts else arrays.empty(PREPARED_BLOB)

    def _append(self, rows: Sequence[BlobDescriptor]) -> None:
        if self._finished:
            raise InvalidInputError("BlobDescriptorArrayBuilder is already finished")
        self._rows += rows

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        columns = [
            arrays.from_python([getattr(row, name) for row in rows], PREPARED_BLOB.field(name).type)
            for name in _MEMBERS
        ]
        self._parts.append(_prepared(columns, np.array([row.kind is not None for row in rows])))


def packed_array(
    blob_id: int, offsets: Words, sizes: Words, valid: npt.NDArray[np.bool_] | None = None
) -> pa.StructArray:
    """Prepared blobs that are ranges of one file, null where not ``valid``."""
    count = len(offsets)
    absent = None if valid is None else ~valid
    columns = [
        arrays.from_numpy(np.full(count, PACKED, np.uint8), mask=absent),
        pa.nulls(count, pa.large_binary()),
        pa.nulls(count, pa.string()),
        arrays.from_numpy(np.full(count, blob_id, np.uint32), mask=absent),
        arrays.from_numpy(sizes, mask=absent),
        arrays.from_numpy(offsets, mask=absent),
    ]
    return _prepared(columns, np.ones(count, np.bool_) if valid is None else valid)


def _prepared(columns: list[pa.Array], valid: npt.NDArray[np.bool_]) -> pa.StructArray:
    return pa.StructArray.from_arrays(
        columns, fields=list(PREPARED_BLOB), mask=None if valid.all() else arrays.from_numpy(~valid)
    )


# --------------------------------------------------------------------------- arguments


def blob_bytes(data: Any) -> memoryview:
    """The bytes of a blob: an object of bytes, without a copy, or a sequence of numbers from 0 to 255.

    Raises:
        TypeError: something else, `str` among it.
        InvalidInputError: (a `ValueError`) a number that is no byte.
    """
    try:
        view = memoryview(data)
    except TypeError:
        if isinstance(data, str) or not isinstance(data, Sequence):
            raise TypeError(f"a blob is bytes or a sequence of bytes, not {type(data).__name__}") from None
        return memoryview(_bytes_of(data))
    if view.itemsize == 1 and view.c_contiguous:
        return view.cast("B")
    return memoryview(_bytes_of(view.tolist()))


def _bytes_of(values: Sequence[Any]) -> bytes:
    try:
        return bytes([operator.index(value) for value in values])
    except ValueError:
        raise InvalidInputError("a blob is made of bytes: numbers from 0 to 255") from None


def check_id(blob_id: int) -> int:
    """The id of a file of blobs.

    Raises:
        TypeError: not a whole number.
        InvalidInputError: (a `ValueError`) not from 1 to 2**32 - 1; 0 is reserved.
    """
    number = _number(blob_id, "blob_id", _LARGEST_ID)
    if not number:
        raise InvalidInputError("blob_id 0 is reserved; ids begin at 1")
    return number


def _number(value: Any, name: str, largest: int = _LARGEST) -> int:
    number = operator.index(value)
    if not 0 <= number <= largest:
        raise InvalidInputError(f"{name} must be 0 to {largest}, got {number}")
    return number


def _numbers(values: Any, name: str) -> Words:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        if values.null_count:
            raise TypeError(f"{name} holds nulls")
        values = arrays.to_numpy(values)
    if not isinstance(values, np.ndarray):
        if not isinstance(values, Sequence):
            raise TypeError(f"{name} must be a sequence, not {type(values).__name__}")
        return np.array([_number(value, name) for value in values], np.uint64)
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise TypeError(f"{name} must be whole numbers in one dimension, not {values.ndim} of {values.dtype}")
    if values.dtype.kind == "i" and len(values) and values.min() < 0:
        raise InvalidInputError(f"{name} must not be negative, got {int(values.min())}")
    return np.ascontiguousarray(values, np.uint64)


def _check_path(uri: str) -> None:
    if not isinstance(uri, str):
        raise TypeError(f"uri must be a str, not {type(uri).__name__}")
    if any(part in ("", ".", "..") for part in uri.split("/")) or "\\" in uri:
        raise InvalidInputError(f"a managed blob lies at a relative path without detours, not at {uri!r}")
    if any(ord(character) < 32 or ord(character) == 127 for character in uri):
        raise InvalidInputError(f"the path of a managed blob has control characters: {uri!r}")
