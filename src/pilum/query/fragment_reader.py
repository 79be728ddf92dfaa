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

from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.file import FileReader
from pilum.query.snapshot import Snapshot
from pilum.schema import Field, Schema
from pilum.table import DataFile, Fragment

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

    __slots__ = ("_arrow", "_nulls", "_parts", "fragment", "schema")

    def __init__(
        self,
        fragment: Fragment,
        schema: Schema,
        parts: list[tuple[FileReader, Schema]],
        nulls: tuple[Field, ...],
    ) -> None:
        self.fragment = fragment
        self.schema = schema
        self._parts = parts
        self._nulls = nulls
        self._arrow = schema.to_arrow()

    @classmethod
    async def open(cls, snapshot: Snapshot, fragment: Fragment, schema: Schema) -> FragmentReader:
        """Open the data files that hold columns of ``schema``; their metadata I/O happens here.

        Raises:
            CorruptFileError: a file contradicts the format or the manifest.
            NotFoundError: a data file is missing.
        """
        files, nulls = _assign(fragment, schema)
        readers = await gather(
            [_open(snapshot, data_file, part) for data_file, part in files], suspends=snapshot.suspends
        )
        for reader, (data_file, _) in zip(readers, files, strict=True):
            if reader.num_rows != fragment.physical_rows and fragment.physical_rows:
                raise CorruptFileError(
                    f"data file {data_file.path} has {reader.num_rows} rows, the manifest says "
                    f"{fragment.physical_rows} (fragment {fragment.id})"
                )
        return cls(fragment, schema, [(reader, part) for reader, (_, part) in zip(readers, files, strict=True)], nulls)

    async def initialise(self) -> None:
        """Load the page metadata of all projected columns, so that later reads ask for data only."""
        for reader, part in self._parts:
            await reader.initialise(part)

    async def read(self, start: int, stop: int) -> pa.RecordBatch:
        """Physical rows ``[start, stop)`` as one batch with the projected schema."""
        if len(self._parts) == 1 and not self._nulls:
            reader, part = self._parts[0]
            return await reader.read_batch(range(start, stop), projection=part)
        return await self._merged(range(start, stop), stop - start)

    async def take(self, offsets: npt.NDArray[np.int64]) -> pa.RecordBatch:
        """The rows at sorted, distinct physical offsets as one batch."""
        if len(self._parts) == 1 and not self._nulls:
            reader, part = self._parts[0]
            return await reader.read_batch(offsets, projection=part)
        return await self._merged(offsets, len(offsets))

    async def _merged(self, rows: range | npt.NDArray[np.int64], count: int) -> pa.RecordBatch:
        batches = [await reader.read_batch(rows, projection=part) for reader, part in self._parts]
        columns = {name: batch.column(name) for batch in batches for name in batch.schema.names}
        for field in self._nulls:
            columns[field.name] = pa.nulls(count, field.arrow_type)
        if not columns:
            # No stored column is wanted: the batch still carries the row count.
            return pa.RecordBatch.from_arrays([pa.nulls(count)], names=["_"]).select([])
        return pa.RecordBatch.from_arrays([columns[name] for name in self._arrow.names], schema=self._arrow)


async def _open(snapshot: Snapshot, data_file: DataFile, part: Schema) -> FileReader:
    if data_file.base_id is not None:
        raise UnsupportedError(f"data file {data_file.path} lies in base path {data_file.base_id}: not supported yet")
    return await FileReader.open(
        snapshot.store,
        "data/" + data_file.path,
        size=data_file.size or None,
        schema=part,
        fields=data_file.fields,
        column_indices=data_file.column_indices,
        cache=snapshot.session.cache,
    )


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
                raise InvalidInputError(f"fragment {fragment.id} holds no data for the required column {field.name!r}")
            nulls.append(field)
        elif len(found) > 1 or not leaves.issubset(files[found[0]].fields):
            raise UnsupportedError(
                f"column {field.name!r} of fragment {fragment.id} is spread over several data files: not supported yet"
            )
        else:
            holders.setdefault(found[0], []).append(field.name)
    return [(files[position], schema.project(names)) for position, names in sorted(holders.items())], tuple(nulls)
