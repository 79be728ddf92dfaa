"""Prepared blobs (v2) on their way into a file: bytes leave for the data area, descriptors remain.

`spec/file-container-and-structure.md`, end of section 4.5::

    kind   what it is                  position        size   blob_id   blob_uri    takes from the prepared row
    0      bytes, in this file         where they lie  size   0         ""          data
    1      part of a sidecar file      in that file    size   its id    ""          position, blob_size, blob_id
    2      a sidecar file              0               size   its id    ""          blob_size, blob_id
    3      anything with an address    in it           size   id        address     all but data
    4, 5   an object of the table      in it           size   base      path        all but data (5: with blob_id)

A prepared blob is shredded as one leaf whose block has one child for each member (`block_of`).  Nulls are
definition levels; members that are null count as 0 and as empty, as the reference has it, but not those of
kinds 4 and 5.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding.arrow_blocks import from_arrow
from pilum.encoding.blocks import FixedBlock, StructBlock, VariableBlock
from pilum.encoding.kernels import ranges
from pilum.encoding.page import LeafRows
from pilum.errors import InvalidInputError

__all__ = ["block_of", "inline_values", "stored_blobs"]

INLINE, PACKED, DEDICATED, EXTERNAL, MANAGED, MANAGED_IN_BASE = range(6)

Words = npt.NDArray[np.uint64]


def block_of(array: pa.Array) -> StructBlock:
    """The block of an array of prepared blobs; null rows are inline blobs of no bytes.

    Raises:
        InvalidInputError: an unknown kind, or a row of kind 4 or 5 without what it needs.
    """
    kind, data, uri, blob_id, size, position = (array.field(index) for index in range(6))
    kinds = arrays.filled(kind)
    rows = arrays.valid(array)
    kinds = np.where(rows, kinds, np.uint8(INLINE))
    if len(kinds) and int(kinds.max()) > MANAGED_IN_BASE:
        raise InvalidInputError(f"a blob of kind {int(kinds.max())}: there are kinds 0 to {MANAGED_IN_BASE}")
    managed = kinds >= MANAGED
    if managed.any():
        complete = arrays.valid(uri) & arrays.valid(size) & arrays.valid(position)
        complete &= arrays.valid(blob_id) == (kinds == MANAGED_IN_BASE)
        if not complete[managed].all():
            raise InvalidInputError(
                "a managed blob needs uri, position and blob_size, and blob_id if it lies in another base and only then"
            )
    fixed = [_fixed(arrays.filled(values)) for values in (blob_id, size, position)]
    return StructBlock(
        (
            _fixed(kinds),
            _variable(data, rows & (kinds == INLINE)),
            _variable(uri, rows & (kinds >= EXTERNAL)),
            *fixed,
        ),
        len(array),
    )


def inline_values(rows: LeafRows) -> VariableBlock:
    """The bytes that go to the data area of the file: those of inline blobs, nothing for others."""
    assert isinstance(rows.block, StructBlock)
    block = rows.block.children[1]
    assert isinstance(block, VariableBlock)
    return block


def stored_blobs(rows: LeafRows, positions: npt.NDArray[np.int64]) -> LeafRows:
    """The descriptors that the file stores.

    Args:
        rows: shredded prepared blobs.
        positions: where the bytes of each inline blob begin in the file; those of others are ignored.
    """
    assert isinstance(rows.block, StructBlock)
    kind, data, uri, blob_id, size, position = rows.block.children
    assert isinstance(data, VariableBlock)
    kinds, ids, sizes, places = (_words(block) for block in (kind, blob_id, size, position))
    inline = kinds == INLINE
    members = (
        kind,
        _fixed(
            np.where(inline, positions.astype(np.uint64), np.where(kinds == DEDICATED, np.uint64(0), places))
        ),
        _fixed(np.where(inline, np.diff(data.offsets).astype(np.uint64), sizes)),
        _fixed(np.where(inline, np.uint32(0), ids)),
        uri,
    )
    return LeafRows(
        StructBlock(members, rows.block.count), rows.rep, rows.definition, rows.layers, rows.num_rows
    )


def _fixed(values: npt.NDArray[np.unsignedinteger]) -> FixedBlock:
    return FixedBlock(values.itemsize * 8, np.ascontiguousarray(values).view(np.uint8), len(values))


def _words(block: object) -> npt.NDArray[np.unsignedinteger]:
    assert isinstance(block, FixedBlock)
    return block.words()


def _variable(array: pa.Array, used: npt.NDArray[np.bool_]) -> VariableBlock:
    """The values; those that are null or not ``used`` are empty."""
    block = from_arrow(array)
    assert isinstance(block, VariableBlock)
    used = used & arrays.valid(array)
    sizes = np.diff(block.offsets)
    if not sizes[~used].any():
        return block
    sizes = np.where(used, sizes, sizes.dtype.type(0))
    offsets = np.zeros(len(sizes) + 1, block.offsets.dtype)
    np.cumsum(sizes, out=offsets[1:])
    data = ranges.gather(block.data, block.offsets[:-1][used], sizes[used])
    return VariableBlock(block.offset_bits, offsets, data, block.count)
