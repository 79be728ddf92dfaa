"""Reads rows of one fragment: its data files side by side, absent columns as nulls.

Members of a column may lie in several files (`members`).

A fragment holds its columns in one or more data files of equal length; a column that no file holds (added
later as all-null) is null.  Opening is the metadata phase: all files are opened concurrently, and what fails
fails in that await, naming the file.  Row numbers here are physical: deletions are the caller's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding import Decoded
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.file import FileReader
from pilum.file.open import open_file
from pilum.io import Bytes
from pilum.query.members import join_members, leaf_paths
from pilum.query.snapshot import Snapshot
from pilum.schema import Field, Schema
from pilum.table import DataFile, Fragment
from pilum.table.model import file_format_version

if TYPE_CHECKING:
    from pilum.file.generic import GenericReader

__all__ = ["FragmentReader", "fetched_whole", "gather"]


async def gather(awaitables: Sequence[Awaitable[Any]], *, suspends: bool) -> list[Any]:
    """Await all: together where they can suspend, one after the other where they cannot."""
    if suspends and len(awaitables) > 1:
        import asyncio

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_as_coroutine(one)) for one in awaitables]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]
    results: list[Any] = []
    try:
        for one in awaitables:
            results.append(await one)
    finally:
        for one in awaitables[len(results) :]:
            if isinstance(one, CoroutineType):
                one.close()
    return results


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class FragmentReader:
    """The opened data files of one fragment, restricted to a projection."""

    __slots__ = ("_arrow", "_nulls", "_only", "_parts", "fragment", "schema")

    def __init__(
        self, fragment: Fragment, schema: Schema, parts: list[GenericReader], nulls: tuple[Field, ...]
    ) -> None:
        self.fragment = fragment
        self.schema = schema
        self._parts = parts
        self._nulls = nulls
        self._arrow = schema.to_arrow()
        self._only = parts[0] if len(parts) == 1 and not nulls else None

    @classmethod
    async def open(
        cls,
        snapshot: Snapshot,
        fragment: Fragment,
        schema: Schema,
        expected_rows: int | None = None,
        bodies: Mapping[str, Bytes] | None = None,
    ) -> FragmentReader:
        """Open the data files that hold columns of ``schema``; their metadata I/O happens here.

        Args:
            snapshot: store and session.
            fragment: what to open.
            schema: the stored columns to read.
            expected_rows: how many rows will be read, all of them by default; a file of which most will be
                read, or which is small on a store with slow round trips, is fetched whole in one request.
            bodies: data files that were fetched whole already, by path.

        Raises:
            CorruptFileError: a file contradicts the format or the manifest.
            NotFoundError: a data file is missing.
        """
        bodies = bodies or {}
        known = cls.known(snapshot, fragment, schema)
        if known is not None:
            return known.with_bodies(bodies) if bodies else known
        rows = fragment.physical_rows if expected_rows is None else expected_rows
        return await cls.open_with(snapshot, fragment, schema, rows, bodies)

    @classmethod
    def known(cls, snapshot: Snapshot, fragment: Fragment, schema: Schema) -> FragmentReader | None:
        """The reader that an earlier query opened, without any bytes of the files."""
        found: FragmentReader | None = snapshot.session.cache.get(_key(snapshot, fragment, schema))
        if found is not None and found.schema is schema and _same_files(found.fragment, fragment):
            return found
        return None

    @classmethod
    def without_reading(
        cls, snapshot: Snapshot, fragment: Fragment, schema: Schema
    ) -> tuple[GenericReader, ...] | None:
        """The data files that hold columns of ``schema``, if opening them asks the store for nothing.  Pure."""
        known = cls.known(snapshot, fragment, schema)
        if known is not None:
            return known.files
        files, _ = _assign(fragment, schema)
        found: list[GenericReader] = []
        for data_file, part in files:
            store, path = snapshot.place_of(data_file)
            reader = FileReader.known(
                store, path, part, data_file.fields, data_file.column_indices, snapshot.session.cache
            )
            if reader is None:
                return None
            found.append(reader)
        return tuple(found)

    @classmethod
    async def open_with(
        cls, snapshot: Snapshot, fragment: Fragment, schema: Schema, rows: int, bodies: Mapping[str, Bytes]
    ) -> FragmentReader:
        """As `open`, for a fragment that is not known, with the bodies of files that are here already."""
        data_files = fragment.files
        nulls: tuple[Field, ...] = ()
        if len(data_files) == 1 and _holds_all(data_files[0].fields, schema):
            readers = [await _open(snapshot, data_files[0], schema, rows, fragment.physical_rows, bodies)]
        else:
            files, nulls = _assign(fragment, schema)
            readers = await gather(
                [
                    _open(snapshot, data_file, part, rows, fragment.physical_rows, bodies)
                    for data_file, part in files
                ],
                suspends=snapshot.suspends,
            )
        for reader in readers:
            _check_rows(fragment, reader)
        opened = cls(fragment, schema, readers, nulls)
        snapshot.session.cache.put(
            _key(snapshot, fragment, schema), opened.with_bodies({}), 600 + 300 * len(readers)
        )
        return opened

    @classmethod
    async def of_body(
        cls, snapshot: Snapshot, fragment: Fragment, schema: Schema, body: Bytes
    ) -> FragmentReader:
        """A reader for one use of a fragment whose only file is here (`fetched_whole`); only metadata is kept."""
        data_file, cache = fragment.files[0], snapshot.session.cache
        path = "data/" + data_file.path
        reader: GenericReader | None = None
        if file_format_version(data_file.version) >= (2, 1):
            reader = FileReader.of_body(
                snapshot.store, path, body, schema, data_file.fields, data_file.column_indices, cache
            )
        if reader is None:
            reader = await _open(snapshot, data_file, schema, 0, fragment.physical_rows, {path: body})
        _check_rows(fragment, reader)
        return cls(fragment, schema, [reader], ())

    @property
    def only(self) -> GenericReader | None:
        """The data file that holds all columns, if there is one."""
        return self._only

    @property
    def _suspends(self) -> bool:
        return len(self._parts) > 1 and self._parts[0].store.suspends

    @property
    def files(self) -> tuple[GenericReader, ...]:
        """The opened data files."""
        return tuple(self._parts)

    def bodies(self) -> dict[str, Bytes]:
        """The data files that were fetched whole, by path."""
        return {reader.path: reader.body for reader in self._parts if reader.body is not None}

    @property
    def is_here(self) -> bool:
        """Whether all files were fetched whole, so that reading them waits for nothing."""
        return all(reader.body is not None for reader in self._parts)

    def with_bodies(self, bodies: Mapping[str, Bytes]) -> FragmentReader:
        """A reader that serves data of some files from their bytes, all others from the store."""
        if not bodies and all(reader.body is None for reader in self._parts):
            return self
        parts = [reader.with_body(bodies.get(reader.path)) for reader in self._parts]
        return FragmentReader(self.fragment, self.schema, parts, self._nulls)

    async def initialise(self) -> None:
        """Load the page metadata of all projected columns, so that later reads ask for data only."""
        await gather([reader.initialise() for reader in self._parts], suspends=self._suspends)

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

    def take_now(self, offsets: npt.NDArray[np.int64]) -> pa.RecordBatch | None:
        """`take` if nothing has to be waited for; None if it is to be awaited."""
        return self._only.take_now(offsets) if isinstance(self._only, FileReader) else None

    async def take(self, offsets: npt.NDArray[np.int64]) -> pa.RecordBatch:
        """The rows at sorted, distinct physical offsets as one batch."""
        if self._only is not None:
            return await self._only.read_batch(offsets)
        return await self._merged(offsets, len(offsets))

    async def _merged(self, rows: range | npt.NDArray[np.int64], count: int) -> pa.RecordBatch:
        batches = await gather([reader.read_batch(rows) for reader in self._parts], suspends=self._suspends)
        pieces: dict[str, list[pa.Array]] = {}
        for batch in batches:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                pieces.setdefault(name, []).append(column)
        if not self.schema.fields:
            # No stored column is wanted: the batch still carries the row count.
            return pa.RecordBatch.from_arrays([pa.nulls(count)], names=["_"]).select([])
        deletions = self.fragment.deletion_file is not None
        columns = [
            join_members(field, pieces.get(field.name, ()), count, deletions=deletions)
            for field in self.schema.fields
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._arrow)


def _check_rows(fragment: Fragment, reader: GenericReader) -> None:
    if reader.num_rows != fragment.physical_rows and fragment.physical_rows:
        raise CorruptFileError(
            f"data file {reader.path} has {reader.num_rows} rows, the manifest says "
            f"{fragment.physical_rows} (fragment {fragment.id})"
        )


# A file up to this size is one request on a store with slow round trips (30 ms at 30 MB/s and more).
_WHOLE_REMOTE = 1 << 20
# On a fast store it must also be one whose bytes are mostly wanted.
_WHOLE_LOCAL = 4 << 20


async def _open(
    snapshot: Snapshot,
    data_file: DataFile,
    part: Schema,
    rows: int,
    all_rows: int,
    bodies: Mapping[str, Bytes],
) -> GenericReader:
    store, path = snapshot.place_of(data_file)
    size = data_file.size or None
    whole = _wants_whole(snapshot, size, part, rows, all_rows)
    return await open_file(
        store,
        path,
        size=size,
        schema=part,
        fields=data_file.fields,
        column_indices=data_file.column_indices,
        cache=snapshot.session.cache,
        whole=whole,
        body=bodies.get(path),
        version=data_file.version,
    )


def _wants_whole(snapshot: Snapshot, size: int | None, schema: Schema, rows: int, all_rows: int) -> bool:
    if size is None:
        return False
    if snapshot.suspends:
        return size <= _WHOLE_REMOTE
    # A fragment that is read unit by unit is not: the bytes would be kept for the first unit only.
    if rows < all_rows or size > _WHOLE_LOCAL:
        return False
    # A file of one block is one read in any case (spec/read-path.md, section 2.2).
    return size <= snapshot.store.block_size or 2 * rows * schema.row_bytes >= size


def fetched_whole(snapshot: Snapshot, fragment: Fragment, schema: Schema, rows: int | None = None) -> int:
    """Size of the file that opening a fragment to read so many rows (all) would fetch whole, 0 if it would not."""
    if len(fragment.files) != 1:
        return 0
    data_file = fragment.files[0]
    if not _holds_all(data_file.fields, schema):
        return 0
    if (
        data_file.base_id is not None
        or not _wants_whole(
            snapshot,
            data_file.size,
            schema,
            fragment.physical_rows if rows is None else rows,
            fragment.physical_rows,
        )
        or snapshot.session.cache.get((snapshot.store.uri, "data/" + data_file.path)) is not None
    ):
        return 0
    return data_file.size or 0


def _key(snapshot: Snapshot, fragment: Fragment, schema: Schema) -> Any:
    # The same schema object comes with every query of a dataset (`Schema.project` keeps it).
    files = fragment.files
    return (snapshot.store.uri, files[0].path if files else fragment.id, id(schema))


def _same_files(one: Fragment, other: Fragment) -> bool:
    return one is other or (one.files == other.files and one.physical_rows == other.physical_rows)


def _holds_all(fields: tuple[int, ...], schema: Schema) -> bool:
    """Whether a file with these fields holds every leaf of a schema; remembered, fragments repeat their fields."""
    return bool(schema.fields) and _contains(fields, schema.leaf_ids)


@lru_cache(maxsize=1024)
def _contains(fields: tuple[int, ...], ids: tuple[int, ...]) -> bool:
    return set(fields).issuperset(ids)


def _assign(fragment: Fragment, schema: Schema) -> tuple[list[tuple[DataFile, Schema]], tuple[Field, ...]]:
    """Give each top-level field, or its members, to the data files that hold its leaves; the rest are null columns."""
    files = fragment.files
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
        elif leaves.issubset(files[found[0]].fields):
            holders.setdefault(found[0], []).append(field.name)
        elif all(file_format_version(files[position].version) >= (2, 1) for position in found):
            for key, path in leaf_paths(field).items():
                position = next((one for one in found if key in files[one].fields), None)
                if position is not None:
                    holders.setdefault(position, []).append(path)
        elif len(found) == 1:
            # Readers of older formats fill absent members.
            holders.setdefault(found[0], []).append(field.name)
        else:
            raise UnsupportedError(
                f"column {field.name!r} of fragment {fragment.id} is spread over several data files, and not all are "
                "of format 2.1 or later"
            )
    return [(files[position], schema.project(names)) for position, names in sorted(holders.items())], tuple(
        nulls
    )
