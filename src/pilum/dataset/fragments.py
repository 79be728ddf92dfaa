"""Fragments: reading one, deleting from one, and making one outside of a commit (spec/api.md, section 6).

Nothing here commits.  `AsyncLanceFragment.delete` writes a deletion file and returns the changed description;
`create_fragment` writes a data file and returns a new one; both go into a `LanceOperation`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pilum.dataset.deleting import delete_offsets, matching_offsets
from pilum.dataset.evolution import add_to_fragment, joined_to, replace_in_fragment
from pilum.dataset.fragment_metadata import DataFile, FragmentMetadata, data_file_of, metadata_of
from pilum.dataset.inputs import read_input
from pilum.dataset.lance_schema import LanceSchema
from pilum.dataset.reading import row_positions
from pilum.dataset.scanning import AsyncLanceScanner, scan_request
from pilum.dataset.transactions import Transaction, transaction_of
from pilum.dataset.transforms import transform_of
from pilum.dataset.writing import WriteOptions, prepare
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.file import GenericReader, open_file
from pilum.io import Store
from pilum.query.fragment_rows import FragmentRows
from pilum.query.projection import Projection, resolve
from pilum.query.request import ScanRequest
from pilum.query.take import take_positions
from pilum.schema import Schema, column_indices
from pilum.table import DataFile as StoredFile
from pilum.table import Fragment, Manifest, data_file_location, open_location, validate
from pilum.table import Transaction as StoredTransaction
from pilum.table.deletions import deletion_path
from pilum.table.transaction import new_uuid

if TYPE_CHECKING:
    from pilum.dataset.handle import Handle

__all__ = ["AsyncFragmentSession", "AsyncLanceFragment", "create_fragment", "write_fragments"]


class AsyncLanceFragment:
    """One fragment of a dataset version."""

    def __init__(self, dataset: Handle, fragment: Fragment) -> None:
        self.dataset = dataset
        self.stored = fragment

    def __repr__(self) -> str:
        files = [one.path for one in self.stored.files]
        deletions = self.deletion_file()
        return f"LanceFragment(id={self.fragment_id}, data_files={files}" + (
            f", deletion_file={deletions!r})" if deletions else ")"
        )

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def fragment_id(self) -> int:
        """Id of the fragment, unique in the history of the table."""
        return self.stored.id

    @property
    def metadata(self) -> FragmentMetadata:
        """The fragment as a value that can be sent and committed."""
        return metadata_of(self.stored)

    @property
    def physical_rows(self) -> int:
        """Rows in the data files, deleted ones included."""
        return self.stored.physical_rows

    @property
    def num_deletions(self) -> int:
        """Number of deleted rows."""
        return self.stored.num_deleted_rows

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the dataset."""
        return self.dataset.manifest.schema.to_arrow()

    def data_files(self) -> list[DataFile]:
        """The data files."""
        return [data_file_of(one) for one in self.stored.files]

    def deletion_file(self) -> str | None:
        """Key of the deletion file, None when nothing is deleted."""
        stored = self.stored.deletion_file
        return None if stored is None else deletion_path(self.stored.id, stored)

    # -- reading ---------------------------------------------------------------------------------------

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> AsyncLanceScanner:
        """Plan a scan of this fragment."""
        snapshot = self.dataset.snapshot
        request = scan_request(
            snapshot.manifest.schema, columns=columns, filter=filter, fragments=[self], **options
        )
        return AsyncLanceScanner(snapshot, request)

    async def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:
        """All rows of a scan of this fragment."""
        return await self.scanner(columns, filter, **options).to_table()

    async def to_batches(
        self, columns: Any = None, filter: Any = None, **options: Any
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches."""
        return await self.scanner(columns, filter, **options).to_batches()

    async def count_rows(self, filter: Any = None) -> int:
        """Number of rows, or of matching rows."""
        return await self.scanner([], filter).count_rows()

    async def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        return await self.to_table(**{**options, "limit": num_rows})

    async def take(self, indices: Sequence[int] | Any, columns: Any = None) -> pa.Table:
        """Rows by live position within the fragment; positions must be strictly increasing."""
        return await self._take(indices, resolve(self.dataset.manifest.schema, columns))

    async def _take(self, indices: Any, projection: Projection) -> pa.Table:
        positions = row_positions(indices)
        if len(positions) > 1 and bool((np.diff(positions) <= 0).any()):
            raise InvalidInputError("fragment take needs strictly increasing positions")
        return await take_positions(self.dataset.snapshot, [self.stored], positions, projection)

    def open_session(self, columns: Any = None, with_row_address: bool | None = None) -> AsyncFragmentSession:
        """A session for repeated reads of the same columns."""
        request = ScanRequest(columns=columns, with_row_address=bool(with_row_address))
        return AsyncFragmentSession(self, request)

    # -- changing --------------------------------------------------------------------------------------

    async def delete(self, predicate: str | Any) -> FragmentMetadata | None:
        """Write a deletion file for the rows that match; does not commit.

        Returns:
            The fragment with the deletion file, unchanged when nothing matched, None when no row is left.
        """
        snapshot = self.dataset.snapshot
        offsets = await matching_offsets(snapshot, self.stored, predicate)
        return _described(await delete_offsets(snapshot, self.stored, offsets))

    async def delete_rows(self, offsets: Iterable[int]) -> FragmentMetadata | None:
        """Write a deletion file for rows by their physical offset; does not commit.

        Raises:
            InvalidInputError: an offset is not in the fragment.
        """
        rows = row_positions(offsets if isinstance(offsets, (pa.Array, np.ndarray)) else list(offsets))
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self.physical_rows:
            wrong = int(rows.min()) if int(rows.min()) < 0 else int(rows.max())
            raise InvalidInputError(
                f"offset {wrong} is out of range for fragment {self.fragment_id} with {self.physical_rows} rows"
            )
        snapshot = self.dataset.snapshot
        return _described(await delete_offsets(snapshot, self.stored, rows.astype(np.uint32)))

    async def merge_columns(
        self,
        value_func: Any,
        columns: Sequence[str] | None = None,
        batch_size: int | None = None,
        reader_schema: pa.Schema | None = None,
    ) -> tuple[FragmentMetadata, LanceSchema]:
        """Write a file with new columns; does not commit.  See `pilum.LanceFragment.merge_columns`."""
        transform = transform_of(value_func, columns, reader_schema, batch_size)
        made, schema = await add_to_fragment(self.dataset.snapshot, self.stored, transform)
        return metadata_of(made), LanceSchema(schema)

    async def merge(
        self, data_obj: Any, left_on: str, right_on: str | None = None, schema: pa.Schema | None = None
    ) -> tuple[FragmentMetadata, LanceSchema]:
        """Write a file with the columns of another table, joined by a key; does not commit."""
        joined = joined_to(data_obj, left_on, right_on, schema)
        made, merged = await add_to_fragment(self.dataset.snapshot, self.stored, joined)
        return metadata_of(made), LanceSchema(merged)

    async def update_columns(
        self,
        data_obj: Any,
        left_on: str = "_rowid",
        right_on: str | None = None,
        schema: pa.Schema | None = None,
        *,
        with_offsets: bool = False,
    ) -> tuple[FragmentMetadata, list[int]] | tuple[FragmentMetadata, list[int], bytes]:
        """Write a file with new values of columns, joined by a key; does not commit."""
        joined = joined_to(data_obj, left_on, right_on, schema)
        changed, fields, offsets = await replace_in_fragment(
            self.dataset.snapshot, self.stored, joined, left_on
        )
        described = metadata_of(changed)
        return (described, fields, offsets) if with_offsets else (described, fields)

    async def validate(self) -> None:
        """Check that the files of the fragment are there and have as many rows as the manifest says.

        Raises:
            CorruptFileError: something is wrong.
        """
        handle = self.dataset
        alone = _with_fragments(handle.manifest, (self.stored,))
        await validate(handle.store, alone)
        for file in self.stored.files:
            location = data_file_location(handle.store.uri, handle.manifest, file)
            reader = await open_file(
                open_location(handle.store, location.uri), location.key, size=file.size or None
            )
            if reader.num_rows != self.physical_rows:
                raise CorruptFileError(
                    f"{location.uri}/{location.key} has {reader.num_rows} rows, fragment {self.fragment_id} "
                    f"{self.physical_rows}"
                )

    @property
    def physical_schema(self) -> pa.Schema:
        """Not supported, as in the reference."""
        raise UnsupportedError("physical_schema: not supported for fragments")

    @property
    def partition_expression(self) -> Any:
        """Not supported: Lance has no partitions."""
        raise UnsupportedError("partition_expression: not supported for fragments")


class AsyncFragmentSession:
    """Reads of the same columns of a fragment, by position or by range (spec/read-path.md, section 7)."""

    def __init__(self, fragment: AsyncLanceFragment, request: ScanRequest) -> None:
        self._fragment = fragment
        self._rows = FragmentRows(fragment.dataset.snapshot, fragment.stored, request)
        self._projection = resolve(
            fragment.dataset.manifest.schema, request.columns, with_row_address=request.with_row_address
        )

    @property
    def schema(self) -> pa.Schema:
        """Schema of what is read."""
        return self._rows.schema

    async def take(self, indices: Sequence[int] | Any) -> pa.Table:
        """Rows by live position; positions must be strictly increasing."""
        return await self._fragment._take(indices, self._projection)

    async def read_all(self) -> AsyncGenerator[pa.RecordBatch, None]:
        """All live rows, as a primed stream of batches.  Close it (``aclosing``) when it is not read to the end."""
        return await self._rows.read_all()

    async def read_range(self, start: int, stop: int) -> AsyncGenerator[pa.RecordBatch, None]:
        """Live rows ``[start, stop)``, fewer where the fragment ends, as a primed stream of batches."""
        return await self._rows.read_range(start, stop)

    async def read_ranges(self, ranges: Sequence[range]) -> AsyncGenerator[pa.RecordBatch, None]:
        """Physical rows of ascending, disjoint ranges without the deleted ones, as a primed stream of batches."""
        return await self._rows.read_ranges(ranges)

    async def take_range(self, start: int, stop: int) -> pa.Table:
        """Physical rows ``[start, stop)`` without the deleted ones: there may be fewer than asked for."""
        return await self._rows.take_range(start, stop)


def _described(fragment: Fragment | None) -> FragmentMetadata | None:
    return None if fragment is None else metadata_of(fragment)


def _with_fragments(manifest: Manifest, fragments: tuple[Fragment, ...]) -> Manifest:
    return replace(manifest, fragments=fragments, indices=())


# -- made outside of a commit --------------------------------------------------------------------------


async def write_fragments(
    store: Store, data: Any, schema: pa.Schema | None, options: WriteOptions, *, return_transaction: bool
) -> list[FragmentMetadata] | Transaction:
    """Write rows as new fragments; see `pilum.write_fragments`."""
    prepared = await prepare(store, read_input(data, schema), options)
    if not return_transaction:
        return [metadata_of(one) for one in prepared.fragments]
    properties = dict(options.properties or {})
    return transaction_of(
        StoredTransaction(prepared.read_version or 0, new_uuid(), prepared.operation, properties)
    )


async def create_fragment(
    store: Store, data: Any, fragment_id: int | None, schema: pa.Schema | None, options: WriteOptions
) -> FragmentMetadata:
    """Write rows as one new fragment; see `pilum.LanceFragment.create`.

    Raises:
        InvalidInputError: there are no rows.
    """
    whole = replace(options, max_rows_per_file=1 << 62, max_bytes_per_file=1 << 62)
    written = await write_fragments(store, data, schema, whole, return_transaction=False)
    assert isinstance(written, list)
    if not written:
        raise InvalidInputError("a fragment needs rows, there are none")
    (fragment,) = written
    fragment.id = fragment_id or 0
    return fragment


async def describe_data_file(
    handle: Handle, path: str, base_id: int | None = None
) -> tuple[DataFile, GenericReader]:
    """A file that lies in the data folder already, matched with the schema by the names of its columns.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it holds a column that the dataset does not have, or of another type.
    """
    location = data_file_location(
        handle.store.uri, handle.manifest, StoredFile(path, (), (), base_id=base_id)
    )
    store = open_location(handle.store, location.uri)
    size = (await store.head(location.key)).size
    found = await open_file(store, location.key, size=size)
    fields = _matched_ids(handle.manifest.schema, found.schema, path)
    if found.version < (0, 3):
        raise UnsupportedError(f"{path}: files of format 0.1 cannot be added to a dataset")
    version = (2, 0) if found.version == (0, 3) else found.version
    columns = list(column_indices(found.schema, version).values())
    if len(columns) != len(fields):
        raise UnsupportedError(
            f"{path}: files of format 2.0 with nested columns cannot be added to a dataset"
        )
    major, minor = version
    described = DataFile(path, fields, columns, major, minor, size, base_id)
    return described, found


def _matched_ids(schema: Schema, stored: Schema, path: str) -> list[int]:
    """Ids that the dataset has for the leaf columns of a file, in the order of the file."""
    names: dict[int, str] = {}

    def walk(field: Any, above: str) -> None:
        names[field.id] = above + field.name
        for child in field.children:
            walk(child, names[field.id] + ".")

    for top in stored.fields:
        walk(top, "")
    ids = []
    for leaf in stored.leaves():
        try:
            known = schema.field(names[leaf.id])
        except (InvalidInputError, KeyError):
            raise InvalidInputError(f"{path}: the dataset has no column {names[leaf.id]!r}") from None
        if known.logical_type != leaf.logical_type:
            raise InvalidInputError(
                f"{path}: column {names[leaf.id]!r} is {leaf.logical_type}, the dataset has {known.logical_type}"
            )
        ids.append(known.id)
    return ids


async def fragment_from_file(handle: Handle, filename: str, fragment_id: int) -> FragmentMetadata:
    """A file that lies in the data folder already, as a fragment."""
    described, found = await describe_data_file(handle, filename)
    return FragmentMetadata(fragment_id, [described], found.num_rows)
