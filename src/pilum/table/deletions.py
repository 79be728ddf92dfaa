"""Deletion vectors: which physical rows of a fragment are gone (spec/table.md, section 11).

A vector is a sorted ``uint32`` array of offsets, cumulative: each new file holds all deletions of its
fragment and supersedes the one before.  Two forms on disk, named by the manifest, never guessed:

    .arrow   Arrow IPC file, exactly one batch, one column ``row_id`` uint32, no nulls, any order
    .bin     portable Roaring bitmap

`read_deletions` and `write_deletions` are the only functions here that touch a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays, distinct
from pilum.errors import CorruptFileError, InvalidInputError
from pilum.io import Store
from pilum.table.locations import locate, open_location
from pilum.table.model import ARROW_ARRAY, BITMAP, BasePath, DeletionFile, Fragment
from pilum.table.naming import DELETIONS, deletion_file_path, new_deletion_id
from pilum.table.roaring import decode_roaring, encode_roaring

__all__ = ["decode_deletions", "deletion_path", "encode_deletions", "read_deletions", "write_deletions"]

Offsets = npt.NDArray[np.uint32]

# Number of deletions from which the reference writes a bitmap.
BITMAP_FROM = 5000

_SUFFIX = {ARROW_ARRAY: "arrow", BITMAP: "bin"}
_SCHEMA: Any = pa.schema([pa.field("row_id", pa.uint32(), nullable=False)])
_NONE: Offsets = np.empty(0, dtype=np.uint32)
_NONE.flags.writeable = False


def deletion_path(fragment_id: int, file: DeletionFile) -> str:
    """Key of a deletion file in its own base."""
    return deletion_file_path(fragment_id, file.read_version, file.id, _SUFFIX[file.file_type])


async def read_deletions(store: Store, fragment: Fragment, *, bases: Sequence[BasePath] = ()) -> Offsets:
    """The deleted offsets of a fragment, ascending; empty when there are none.

    Args:
        store: the table's store.
        fragment: whose deletions.
        bases: base paths of the manifest, for files that lie in one of them.

    Raises:
        CorruptFileError: the file contradicts the format or the manifest, or the base is not known.
    """
    file = fragment.deletion_file
    if file is None:
        return _NONE
    path = deletion_path(fragment.id, file)
    if file.base_id is not None:
        store = open_location(store, locate(store.uri, bases, file.base_id, DELETIONS, path).uri)
    data = await store.get_all(path, who="deletions")
    offsets = decode_deletions(data, file.file_type, f"{store.uri}/{path}")
    _check(offsets, fragment, f"{store.uri}/{path}")
    if file.num_deleted_rows not in (0, len(offsets)):
        raise CorruptFileError(
            f"{store.uri}/{path} holds {len(offsets)} deletions, the manifest says {file.num_deleted_rows}"
        )
    return offsets


async def write_deletions(
    store: Store, fragment: Fragment, offsets: Any, read_version: int, *, file_type: int | None = None
) -> DeletionFile:
    """Write all deletions of a fragment to a new file.

    Args:
        store: the table's store.
        fragment: whose rows are deleted.
        offsets: physical offsets, any order; earlier deletions of the fragment included.
        read_version: version of the table the deletion was computed on.
        file_type: form of the file; by default an array below 5000 entries, a bitmap from there on.

    Raises:
        InvalidInputError: nothing is deleted, or everything is (then the fragment must go instead), or an
            offset lies outside the fragment.
    """
    sorted_offsets = distinct.unique(np.asarray(offsets, dtype=np.uint32))
    count = len(sorted_offsets)
    if count == 0:
        raise InvalidInputError(f"no rows of fragment {fragment.id} to delete: write no deletion file")
    if fragment.physical_rows:
        try:
            _check(sorted_offsets, fragment, "deletions")
        except CorruptFileError as error:
            raise InvalidInputError(str(error)) from None
        if count == fragment.physical_rows:
            raise InvalidInputError(
                f"every row of fragment {fragment.id} is deleted: remove the fragment instead"
            )
    if file_type is None:
        file_type = ARROW_ARRAY if count < BITMAP_FROM else BITMAP
    file = DeletionFile(file_type, read_version, new_deletion_id(), count)
    await store.put_new(deletion_path(fragment.id, file), encode_deletions(sorted_offsets, file_type))
    return file


def encode_deletions(offsets: Offsets, file_type: int) -> bytes:
    """The bytes of a deletion file; ``offsets`` ascend strictly."""
    if file_type == BITMAP:
        return encode_roaring(offsets)
    sink = pa.BufferOutputStream()
    # Arrow's own threads stay out of it: they hang in children of busy parents.
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, _SCHEMA, options=options) as writer:
        writer.write_batch(pa.record_batch([arrays.from_numpy(offsets, pa.uint32())], schema=_SCHEMA))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode_deletions(data: Any, file_type: int, where: str) -> Offsets:
    """The offsets in the bytes of a deletion file, ascending.

    Raises:
        CorruptFileError: the bytes are not such a file.
    """
    if file_type == BITMAP:
        return decode_roaring(data, where)
    if file_type != ARROW_ARRAY:
        raise CorruptFileError(f"{where}: unknown type {file_type} of a deletion file")
    try:
        return _decode_arrow(data, where)
    except (pa.ArrowException, OSError, MemoryError) as error:
        if isinstance(error, CorruptFileError):
            raise
        raise CorruptFileError(f"{where}: not a valid Arrow deletion file: {error}") from error


def _decode_arrow(data: Any, where: str) -> Offsets:
    options = pa.ipc.IpcReadOptions(use_threads=False)
    reader = pa.ipc.open_file(pa.py_buffer(data), options=options)
    if reader.num_record_batches != 1:
        raise CorruptFileError(
            f"{where}: a deletion file has one batch, this one has {reader.num_record_batches}"
        )
    schema = reader.schema
    if schema.names != ["row_id"] or schema.field(0).type != pa.uint32():
        raise CorruptFileError(
            f"{where}: a deletion file has one column row_id: uint32, this one has {schema}"
        )
    batch = reader.get_batch(0)
    batch.validate(full=True)
    column = batch.column(0)
    if column.null_count:
        raise CorruptFileError(f"{where}: a deletion file with {column.null_count} nulls")
    offsets: Offsets = arrays.to_numpy(column)
    unique = distinct.unique(offsets)
    if len(unique) != len(offsets):
        raise CorruptFileError(f"{where}: a deletion file that lists a row twice")
    return unique


def _check(offsets: Offsets, fragment: Fragment, where: str) -> None:
    if len(offsets) and fragment.physical_rows and int(offsets[-1]) >= fragment.physical_rows:
        raise CorruptFileError(
            f"{where}: row {int(offsets[-1])} is deleted, but fragment {fragment.id} has {fragment.physical_rows} rows"
        )
