"""Reads rows of one fragment: its data files side by side, absent columns as nulls.

A fragment holds its columns in one or more data files of equal length; a column that no file holds (added
later as all-null) is null.  Opening is the metadata phase: all files are opened concurrently, and what fails
fails in that await, naming the file.  Row numbers here are physical: deletions are the caller's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding import Decoded
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.file.generic import GenericReader
from pilum.file.open import open_file
from pilum.io import Bytes
from pilum.query.snapshot import Snapshot
from pilum.schema import Field, Schema
from pilum.table import DataFile, Fragment
from pilum.table.model import file_format_version

__all__ = ["FragmentReader", "gather"]


async def gather(awaitables: Sequence[Awaitable[Any]], *, suspends: bool) -> list[Any]:
    """Await all: together where they can suspend, one after the other where they cannot."""
    if suspends and len(awaitables) > 1:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_as_coroutine(one)) for one in awaitables]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]
    return [await one for one in awaitables]


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class FragmentReader:
    """The opened data files of one fragment, restricted to a projection."""

    __slots__ = ("_arrow", "_nulls", "_only", "_parts", "fragment", "schema")

    def __init__(
        self,
        fragment: Fragment,
        schema: Schema,
        parts: list[tuple[GenericReader, Schema]],
        nulls: tuple[Field, ...],
    ) -> None:
        self.fragment = fragment
        self.schema = schema
        self._parts = parts
        self._nulls = nulls
        self._arrow = schema.to_arrow()
        self._only = parts[0][0] if len(parts) == 1 and not nulls else None

    @classmethod
    async def open(
        cls,
        snapshot: Snapshot,
        fragment: Fragment,
        schema: Schema,
        expected_rows: int | None = None,
        beside: FragmentReader | None = None,
    ) -> FragmentReader:
        """Open the data files that hold columns of ``schema``; their metadata I/O happens here.

        Args:
            snapshot: store and session.
            fragment: what to open.
            schema: the stored columns to read.
            expected_rows: how many rows will be read, all of them by default; a file of which most will be
                read, or which is small on a store with slow round trips, is fetched whole in one request.
            beside: a reader of other columns of this fragment; files that it fetched whole are not fetched again.

        Raises:
            CorruptFileError: a file contradicts the format or the manifest.
            NotFoundError: a data file is missing.
        """
        cache = snapshot.session.cache
        # The same schema object comes with every query of a dataset (`Schema.project` keeps it).
        key = (snapshot.store.uri, fragment.files[0].path if fragment.files else fragment.id, id(schema))
        known: FragmentReader | None = cache.get(key)
        bodies = beside.bodies() if beside is not None else {}
        if known is not None and known.schema is schema and _same_files(known.fragment, fragment):
            return known._with_bodies(bodies) if bodies else known
        files, nulls = _assign(fragment, schema)
        rows = fragment.physical_rows if expected_rows is None else expected_rows
        readers = await gather(
            [_open(snapshot, data_file, part, rows, bodies) for data_file, part in files],
            suspends=snapshot.suspends,
        )
        for reader, (data_file, _) in zip(readers, files, strict=True):
            if reader.num_rows != fragment.physical_rows and fragment.physical_rows:
                raise CorruptFileError(
                    f"data file {data_file.path} has {reader.num_rows} rows, the manifest says "
                    f"{fragment.physical_rows} (fragment {fragment.id})"
                )
        parts = [(reader, part) for reader, (_, part) in zip(readers, files, strict=True)]
        opened = cls(fragment, schema, parts, nulls)
        cache.put(key, opened._with_bodies({}), 600 + 300 * len(parts))
        return opened

    def bodies(self) -> dict[str, Bytes]:
        """The data files that were fetched whole, by path."""
        return {reader.path: reader.body for reader, _ in self._parts if reader.body is not None}

    def _with_bodies(self, bodies: dict[str, Bytes]) -> FragmentReader:
        parts = [(reader.with_body(bodies.get(reader.path)), part) for reader, part in self._parts]
        return FragmentReader(self.fragment, self.schema, parts, self._nulls)

    async def initialise(self) -> None:
        """Load the page metadata of all projected columns, so that later reads ask for data only."""
        for reader, _ in self._parts:
            await reader.initialise()

    async def read(self, start: int, stop: int) -> pa.RecordBatch:
        """Physical rows ``[start, stop)`` as one batch with the projected schema."""
        if self._only is not None:
            return await self._only.read_batch(range(start, stop))
        return await self._merged(range(start, stop), stop - start)

    async def read_decoded(self, start: int, stop: int) -> list[Decoded] | pa.Array:
        """Physical rows ``[start, stop)`` of the only column: its decoded pages, or an Arrow array where several
        files or a missing column are involved."""
        if self._only is not None:
            return (await self._only.read_decoded(start, stop))[0]
        return (await self._merged(range(start, stop), stop - start)).column(0)

    async def take(self, offsets: npt.NDArray[np.int64]) -> pa.RecordBatch:
        """The rows at sorted, distinct physical offsets as one batch."""
        if self._only is not None:
            return await self._only.read_batch(offsets)
        return await self._merged(offsets, len(offsets))

    async def _merged(self, rows: range | npt.NDArray[np.int64], count: int) -> pa.RecordBatch:
        batches = [await reader.read_batch(rows) for reader, _ in self._parts]
        columns = {name: batch.column(name) for batch in batches for name in batch.schema.names}
        for field in self._nulls:
            columns[field.name] = pa.nulls(count, field.arrow_type)
        if not columns:
            # No stored column is wanted: the batch still carries the row count.
            return pa.RecordBatch.from_arrays([pa.nulls(count)], names=["_"]).select([])
        return pa.RecordBatch.from_arrays([columns[name] for name in self._arrow.names], schema=self._arrow)


# A file up to this size is one request on a store with slow round trips (30 ms at 30 MB/s and more).
_WHOLE_REMOTE = 1 << 20
# On a fast store it must also be one whose bytes are mostly wanted.
_WHOLE_LOCAL = 4 << 20


async def _open(
    snapshot: Snapshot, data_file: DataFile, part: Schema, rows: int, bodies: dict[str, Bytes]
) -> GenericReader:
    if data_file.base_id is not None:
        raise UnsupportedError(
            f"data file {data_file.path} lies in base path {data_file.base_id}: not supported yet"
        )
    size = data_file.size or None
    whole = size is not None and (
        size <= _WHOLE_REMOTE
        if snapshot.suspends
        else size <= _WHOLE_LOCAL and 2 * rows * part.row_bytes >= size
    )
    return await open_file(
        snapshot.store,
        "data/" + data_file.path,
        size=size,
        schema=part,
        fields=data_file.fields,
        column_indices=data_file.column_indices,
        cache=snapshot.session.cache,
        whole=whole,
        body=bodies.get("data/" + data_file.path),
        version=data_file.version,
    )


def _same_files(one: Fragment, other: Fragment) -> bool:
    return one is other or (one.files == other.files and one.physical_rows == other.physical_rows)


def _assign(fragment: Fragment, schema: Schema) -> tuple[list[tuple[DataFile, Schema]], tuple[Field, ...]]:
    """Give each top-level field to the data file that holds its leaves; the rest are null columns."""
    if not schema.fields:
        return [], ()
    files = fragment.files
    if len(files) == 1 and set(files[0].fields).issuperset(leaf.id for leaf in schema.leaves()):
        return [(files[0], schema)], ()
    holders: dict[int, list[str]] = {}
    nulls: list[Field] = []
    for field in schema.fields:
        leaves = {leaf.id for leaf in Schema((field,), {}).leaves()}
        found = [position for position, data_file in enumerate(files) if leaves & set(data_file.fields)]
        if not found:
            if not field.nullable:
                raise InvalidInputError(
                    f"fragment {fragment.id} holds no data for the required column {field.name!r}"
                )
            nulls.append(field)
        elif not leaves.issubset(files[found[0]].fields) and (
            len(found) > 1 or file_format_version(files[found[0]].version) >= (2, 1)
        ):
            # Readers of older formats fill absent members; ids that two files list belong to the first (0.10).
            raise UnsupportedError(
                f"column {field.name!r} of fragment {fragment.id} is spread over several data files: not supported yet"
            )
        else:
            holders.setdefault(found[0], []).append(field.name)
    return [(files[position], schema.project(names)) for position, names in sorted(holders.items())], tuple(
        nulls
    )
