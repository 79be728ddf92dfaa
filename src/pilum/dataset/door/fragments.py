"""The synchronous fragment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pilum.dataset import core
from pilum.dataset.arrow_protocol import Posing
from pilum.dataset.door.base import Door
from pilum.dataset.door.reading import Columns
from pilum.dataset.door.scanner import LanceScanner, check_blob_mode
from pilum.dataset.fragment_metadata import DataFile, FragmentMetadata
from pilum.dataset.fragments import AsyncFragmentSession, AsyncLanceFragment
from pilum.dataset.lance_schema import LanceSchema
from pilum.errors import NotFoundError
from pilum.io import address_suspends, iterate, run

__all__ = ["FragmentSession", "LanceFragment"]


class LanceFragment(Posing):
    """One fragment of a dataset version.

    Args:
        dataset: the dataset.
        fragment_id: id of the fragment.

    Raises:
        NotFoundError: there is no such fragment.

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-fragment")
        >>> fragment = ds.get_fragments()[0]
        >>> fragment.physical_rows, fragment.to_table(filter="a > 2").to_pydict()
        (3, {'a': [3]})
    """

    poses_as = "Fragment"

    def __init__(self, dataset: Door, fragment_id: int | None) -> None:
        found = None if fragment_id is None else dataset.aio.get_fragment(fragment_id)
        if found is None:
            raise NotFoundError(f"{dataset.aio.uri} has no fragment {fragment_id}")
        self.dataset = dataset
        self.aio = found

    @classmethod
    def of(cls, dataset: Door, aio: AsyncLanceFragment) -> LanceFragment:
        """The synchronous face of an asynchronous fragment."""
        made = cls.__new__(cls)
        made.dataset = dataset
        made.aio = aio
        return made

    def __repr__(self) -> str:
        return repr(self.aio)

    def __reduce__(self) -> tuple[Any, ...]:
        return LanceFragment, (self.dataset, self.fragment_id)

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def fragment_id(self) -> int:
        """Id of the fragment, unique in the history of the table."""
        return self.aio.fragment_id

    @property
    def metadata(self) -> FragmentMetadata:
        """The fragment as a value that can be sent and committed."""
        return self.aio.metadata

    @property
    def physical_rows(self) -> int:
        """Rows in the data files, deleted ones included."""
        return self.aio.physical_rows

    @property
    def num_deletions(self) -> int:
        """Number of deleted rows."""
        return self.aio.num_deletions

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the dataset."""
        return self.aio.schema

    @property
    def physical_schema(self) -> pa.Schema:
        """Not supported, as in the reference."""
        return self.aio.physical_schema

    @property
    def partition_expression(self) -> Any:
        """Not supported: Lance has no partitions."""
        return self.aio.partition_expression

    def data_files(self) -> list[DataFile]:
        """The data files."""
        return self.aio.data_files()

    def deletion_file(self) -> str | None:
        """Key of the deletion file, None when nothing is deleted."""
        return self.aio.deletion_file()

    # -- reading ---------------------------------------------------------------------------------------

    def scanner(
        self, schema: pa.Schema | None = None, *, columns: Columns = None, filter: Any = None, **options: Any
    ) -> LanceScanner:
        """Plan a scan of this fragment.

        Args:
            schema: accepted where an Arrow fragment has it; the schema is that of the dataset.
            columns, filter, options: as in `LanceDataset.scanner`.
        """
        if schema is not None and not isinstance(schema, pa.Schema):
            raise TypeError("scanner takes columns= and filter= by name")
        return LanceScanner(self.aio.scanner(columns, filter, **options))

    def to_table(self, columns: Columns = None, filter: Any = None, **options: Any) -> pa.Table:
        """All rows of a scan of this fragment."""
        return self.scanner(columns=columns, filter=filter, **options).to_table()

    def to_batches(
        self, columns: Columns = None, filter: Any = None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a scan of this fragment batch by batch."""
        return self.scanner(columns=columns, filter=filter, **options).to_batches()

    def to_pandas(
        self, columns: Columns = None, filter: Any = None, *, blob_mode: str = "lazy", **options: Any
    ) -> Any:
        """All rows of a scan of this fragment as a pandas data frame."""
        check_blob_mode(blob_mode)
        return self.to_table(columns, filter, **options).to_pandas(use_threads=False)

    def count_rows(self, filter: Any = None) -> int:
        """Number of rows, or of matching rows."""
        return self.scanner(columns=[], filter=filter).count_rows()

    def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        return self.to_table(**{**options, "limit": num_rows})

    def take(self, indices: Sequence[int] | pa.Array, columns: Columns = None) -> pa.Table:
        """Rows by live position within the fragment; positions must be strictly increasing.

        Raises:
            InvalidInputError: they are not, or one is past the end.
        """
        return self.dataset._run(self.aio.take(indices, columns))

    def open_session(self, columns: Columns = None, with_row_address: bool | None = None) -> FragmentSession:
        """A session for repeated takes of the same columns."""
        return FragmentSession(self, self.aio.open_session(columns, with_row_address))

    # -- changing --------------------------------------------------------------------------------------

    def delete(self, predicate: str | Any) -> FragmentMetadata | None:
        """Write a deletion file for the rows that match; does not commit.

        Returns:
            The fragment with the deletion file, unchanged when nothing matched, None when no row is left; commit
            it with `LanceOperation.Delete`.
        """
        return self.dataset._run(self.aio.delete(predicate))

    def delete_rows(self, offsets: Iterable[int]) -> FragmentMetadata | None:
        """Write a deletion file for rows by their physical offset; does not commit.

        Raises:
            InvalidInputError: an offset is not in the fragment (a `ValueError`).
        """
        return self.dataset._run(self.aio.delete_rows(offsets))

    def merge_columns(
        self,
        value_func: Any,
        columns: Sequence[str] | None = None,
        batch_size: int | None = None,
        reader_schema: pa.Schema | None = None,
    ) -> tuple[FragmentMetadata, LanceSchema]:
        """Write a file with new columns for this fragment; does not commit.

        Args:
            value_func: SQL expressions, a function or rows, as for `LanceDataset.add_columns`.
            columns: columns that a function is given; all by default.
            batch_size: rows that a function is given at once.
            reader_schema: schema of the new columns, for iterators of batches and for functions.

        Returns:
            The fragment with its new file, and the schema of the dataset with the new columns.  When every fragment
            has them, commit all with `LanceOperation.Merge`.

        Raises:
            InvalidInputError: a column exists already, or there are more or fewer values than rows.
        """
        return self.dataset._run(self.aio.merge_columns(value_func, columns, batch_size, reader_schema))

    def merge(
        self, data_obj: Any, left_on: str, right_on: str | None = None, schema: pa.Schema | None = None
    ) -> tuple[FragmentMetadata, LanceSchema]:
        """Write a file with the columns of another table, joined by a key; does not commit.

        Arguments as for `LanceDataset.merge`, result and errors as for `merge_columns`.
        """
        return self.dataset._run(self.aio.merge(data_obj, left_on, right_on, schema))

    def update_columns(
        self,
        data_obj: Any,
        left_on: str = "_rowid",
        right_on: str | None = None,
        schema: pa.Schema | None = None,
        *,
        with_offsets: bool = False,
    ) -> tuple[FragmentMetadata, list[int]] | tuple[FragmentMetadata, list[int], bytes]:
        """Write a file with new values of columns, joined by a key; does not commit.

        Args:
            data_obj: rows with the key and the columns; held in memory.
            left_on: key column of the dataset.
            right_on: key column of the data, by default of the same name.
            schema: needed for iterators of batches.
            with_offsets: also return which rows matched.

        Returns:
            The fragment with its new file, the ids of the fields with new values and, if asked for, the offsets of
            the rows as a Roaring bitmap; commit them with `LanceOperation.Update` in mode ``rewrite_columns``.

        Raises:
            InvalidInputError: the dataset does not have a column, or its type does not fit.
        """
        return self.dataset._run(
            self.aio.update_columns(data_obj, left_on, right_on, schema, with_offsets=with_offsets)
        )

    def validate(self) -> None:
        """Check that the files of the fragment are there and have the rows the manifest says.

        Raises:
            CorruptFileError: something is wrong.
        """
        self.dataset._run(self.aio.validate())

    # -- making one outside of a commit ----------------------------------------------------------------

    @staticmethod
    def create(
        dataset_uri: str | os.PathLike[str],
        data: Any,
        fragment_id: int | None = None,
        schema: pa.Schema | None = None,
        max_rows_per_group: int | None = 1024,
        progress: Any = None,
        mode: str = "append",
        *,
        data_storage_version: str | None = None,
        use_legacy_format: bool | None = None,
        storage_options: Mapping[str, str] | None = None,
        namespace_client: Any = None,
        table_id: list[str] | None = None,
        session: Any = None,
    ) -> FragmentMetadata:
        """Write rows as one fragment without committing it.

        Args:
            dataset_uri: the dataset, which need not exist.
            data: rows, as for `pilum.write_dataset`.
            fragment_id: id to give it; 0, the default, lets the commit choose.
            schema: needed for iterators of batches.
            max_rows_per_group: accepted.
            progress: a `FragmentWriteProgress`.
            mode: what it is to be committed with; ``append`` checks the schema of the dataset.
            data_storage_version: file format; that of the dataset by default.
            use_legacy_format: deprecated.
            storage_options: options of the store.
            namespace_client, table_id: not supported.
            session: accepted.

        Example:
            >>> import pilum, pyarrow as pa
            >>> ds = pilum.write_dataset(pa.table({"a": [1]}), "memory://doc-create")
            >>> made = pilum.LanceFragment.create("memory://doc-create", pa.table({"a": [2]}))
            >>> append = pilum.LanceOperation.Append([made])
            >>> pilum.LanceDataset.commit("memory://doc-create", append, read_version=ds.version).count_rows()
            2
        """
        coroutine = core.create_fragment_at(
            dataset_uri,
            data,
            fragment_id,
            schema,
            mode=mode,
            max_rows_per_group=max_rows_per_group,
            progress=progress,
            data_storage_version=data_storage_version,
            use_legacy_format=use_legacy_format,
            storage_options=storage_options,
            namespace_client=namespace_client,
            table_id=table_id,
            session=session,
        )
        return run(coroutine, suspends=address_suspends(dataset_uri))

    @staticmethod
    def create_from_file(filename: str, dataset: Door, fragment_id: int) -> FragmentMetadata:
        """Describe a file that lies in the ``data`` folder already as a fragment.

        Raises:
            NotFoundError: there is no such file.
            InvalidInputError: it holds a column that the dataset does not have.
        """
        return dataset._run(dataset.aio.fragment_from_file(filename, fragment_id))


class FragmentSession:
    """Reads of the same columns of a fragment, by position or by range.

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": range(6)}), "memory://doc-session-rows")
        >>> _ = ds.delete("a = 1")
        >>> session = ds.get_fragments()[0].open_session(["a"])
        >>> session.take_range(0, 3)["a"].to_pylist()
        [0, 2]
        >>> [batch.column(0).to_pylist() for batch in session.read_range(1, 3)]
        [[2, 3]]
    """

    def __init__(self, fragment: LanceFragment, aio: AsyncFragmentSession) -> None:
        self._fragment = fragment
        self._aio = aio

    @property
    def schema(self) -> pa.Schema:
        """Schema of what is read."""
        return self._aio.schema

    def take(self, indices: Sequence[int] | pa.Array) -> pa.Table:
        """Rows by live position within the fragment; positions must be strictly increasing."""
        return self._fragment.dataset._run(self._aio.take(indices))

    def read_all(self) -> Iterator[pa.RecordBatch]:
        """All live rows, batch by batch."""
        return self._iterate(self._aio.read_all())

    def read_range(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Live rows ``[start, stop)``, fewer where the fragment ends, batch by batch.

        Raises:
            InvalidInputError: the range is reversed or begins before 0.
        """
        return self._iterate(self._aio.read_range(start, stop))

    def read_ranges(self, ranges: Sequence[range]) -> Iterator[pa.RecordBatch]:
        """Physical rows of ascending, disjoint ranges without the deleted ones, batch by batch.

        Raises:
            InvalidInputError: a range ends after the last physical row, or before another one.
        """
        return self._iterate(self._aio.read_ranges(ranges))

    def take_range(self, start: int, stop: int) -> pa.Table:
        """Physical rows ``[start, stop)`` without the deleted ones: there may be fewer than asked for.

        Raises:
            InvalidInputError: the range ends after the last physical row.
        """
        return self._fragment.dataset._run(self._aio.take_range(start, stop))

    def _iterate(self, opening: Any) -> Iterator[pa.RecordBatch]:
        dataset = self._fragment.dataset
        return iterate(dataset._run(opening), suspends=dataset.aio.snapshot.suspends)
