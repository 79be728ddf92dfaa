"""The synchronous dataset: the calls of `pilum.dataset.core`, driven to their end.

Every method hands the same coroutine to `pilum.io.run`: on local disks and in memory it runs right here, on
the calling thread; for remote stores on one background loop.  There is no second implementation: a method
here is its signature, its documentation and one line.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from pilum.dataset import core
from pilum.file import Session
from pilum.io import iterate, run, store_for
from pilum.query.request import ScanRequest
from pilum.schema import Schema
from pilum.table import Manifest

__all__ = ["LanceDataset", "LanceFragment", "LanceScanner", "dataset", "write_dataset"]

T = TypeVar("T")


def dataset(
    uri: str | os.PathLike[str],
    version: int | None = None,
    *,
    storage_options: Mapping[str, str] | None = None,
    session: Session | None = None,
) -> LanceDataset:
    """Open a dataset.

    Args:
        uri: a path, ``file://`` or ``memory://`` address.
        version: version number; the newest by default.
        storage_options: options of the store.
        session: caches to share with other datasets; a private session by default.

    Raises:
        NotFoundError: (a `ValueError` and `FileNotFoundError`) no dataset, or no such version.

    Example:
        >>> import pilum, pyarrow as pa
        >>> _ = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-open")
        >>> pilum.dataset("memory://doc-open").count_rows("a > 1")
        2
    """
    suspends = store_for(uri, storage_options).suspends
    opened = run(
        core.open_dataset(uri, version, storage_options=storage_options, session=session), suspends=suspends
    )
    return LanceDataset(opened)


def write_dataset(
    data_obj: Any,
    uri: str | os.PathLike[str] | LanceDataset,
    schema: pa.Schema | None = None,
    mode: str = "create",
    *,
    max_rows_per_file: int = 1 << 20,
    max_bytes_per_file: int = 90 << 30,
    data_storage_version: str | None = None,
    commit_message: str | None = None,
    transaction_properties: Mapping[str, str] | None = None,
    storage_options: Mapping[str, str] | None = None,
    session: Session | None = None,
) -> LanceDataset:
    """Write rows as a new dataset or as a new version of one.

    Args:
        data_obj: Arrow table, record batch(es) or reader, pandas or polars frame, a list of dictionaries, a
            dictionary of columns, anything with ``__arrow_c_stream__``, or an iterator of batches.
        uri: where the dataset lies, or an open dataset.
        schema: needed for iterators of batches and empty lists.
        mode: ``create`` (fails when it exists), ``append`` (adds fragments; creates when missing) or
            ``overwrite`` (a new version with a new schema; old versions stay readable).
        max_rows_per_file: rows per data file and so per fragment.
        max_bytes_per_file: soft limit on the size of a data file, checked between batches.
        data_storage_version: file format, ``"2.2"`` (= ``"stable"``, the default) or ``"2.1"``; on append the
            version of the dataset.
        commit_message: stored in the transaction.
        transaction_properties: further properties of the transaction.
        storage_options: options of the store.
        session: caches the returned dataset uses.

    Raises:
        AlreadyExistsError: ``mode="create"`` and the dataset exists (an `OSError`).
        InvalidInputError: the rows do not fit (an `OSError` and a `ValueError`).

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-write")
        >>> ds = pilum.write_dataset([{"a": 4}], "memory://doc-write", mode="append")
        >>> ds.version, ds.count_rows()
        (2, 4)
    """
    target: Any = uri.aio if isinstance(uri, LanceDataset) else uri
    store = target.snapshot.store if isinstance(uri, LanceDataset) else store_for(uri, storage_options)
    written = run(
        core.write_dataset(
            data_obj,
            target,
            schema,
            mode,
            max_rows_per_file=max_rows_per_file,
            max_bytes_per_file=max_bytes_per_file,
            data_storage_version=data_storage_version,
            commit_message=commit_message,
            transaction_properties=transaction_properties,
            storage_options=storage_options,
            session=session,
        ),
        suspends=store.suspends,
    )
    return LanceDataset(written)


class LanceDataset:
    """One version of a dataset.

    Reading never changes it; `delete` and `insert` move it to the version they commit.  It may be used from
    many threads, pickled to other processes, and used after ``fork()``.  The asynchronous twin is `aio`.
    """

    def __init__(self, aio: core.AsyncLanceDataset) -> None:
        self.aio = aio

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self.aio.snapshot.suspends)

    def __repr__(self) -> str:
        return repr(self.aio).replace("AsyncLance", "Lance")

    def __reduce__(self) -> tuple[Any, ...]:
        return LanceDataset, (self.aio,)

    def __len__(self) -> int:
        return self.count_rows()

    @property
    def uri(self) -> str:
        """Address of the dataset."""
        return self.aio.uri

    @property
    def version(self) -> int:
        """Version number of this handle."""
        return self.aio.version

    @property
    def latest_version(self) -> int:
        """Newest version number in the store; reads no manifest."""
        return self._run(self.aio.latest_version())

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema."""
        return self.aio.schema

    @property
    def lance_schema(self) -> Schema:
        """Schema with field ids and logical types."""
        return self.aio.lance_schema

    @property
    def data_storage_version(self) -> str:
        """File format version of the data files."""
        return self.aio.data_storage_version

    @property
    def manifest(self) -> Manifest:
        """The decoded manifest of this version."""
        return self.aio.manifest

    def session(self) -> Session:
        """The caches this handle uses; pass it to `pilum.dataset` to share them."""
        return self.aio.session

    def scanner(
        self,
        columns: Sequence[str] | Mapping[str, str] | None = None,
        filter: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        nearest: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> LanceScanner:
        """Plan a scan.

        Args:
            columns: names (dotted for nested fields), or ``{"name": "sql expression"}``; all by default.
            filter: SQL text or a ``pyarrow.compute.Expression``.
            limit, offset: rows to return and to skip.
            nearest: vector search: ``column``, ``q``, ``k`` (10), ``metric`` (``l2``, ``cosine``, ``dot``),
                ``distance_range`` (lower, upper).  The result gets a ``_distance`` column, nearest first.
            batch_size: most rows per batch.
            prefilter (bool): with ``nearest``, filter before the search instead of after it.
            with_row_id, with_row_address (bool): append ``_rowid`` / ``_rowaddr``.
            fragment_readahead (int): fragments opened ahead.
            fragments: fragments (or ids) to read; all by default.

        Raises:
            InvalidInputError: unknown column, bad filter (a `ValueError`).
            TypeError: unknown option.
        """
        return LanceScanner(
            self.aio.scanner(
                columns, filter, limit=limit, offset=offset, nearest=nearest, batch_size=batch_size, **options
            )
        )

    def to_table(
        self, columns: Sequence[str] | Mapping[str, str] | None = None, filter: Any = None, **options: Any
    ) -> pa.Table:
        """All rows of a scan as one table; options as in `scanner`."""
        return self.scanner(columns, filter, **options).to_table()

    def to_batches(
        self, columns: Sequence[str] | Mapping[str, str] | None = None, filter: Any = None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a scan batch by batch, in bounded memory; options as in `scanner`."""
        return self.scanner(columns, filter, **options).to_batches()

    def to_pandas(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:
        """All rows of a scan as a pandas data frame."""
        return self.to_table(columns, filter, **options).to_pandas(use_threads=False)

    def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        return self._run(self.aio.head(num_rows, **options))

    def slice(self, start: int, end: int, columns: Any = None) -> pa.Table:
        """Rows ``[start, end)`` by position, cut at the end of the table."""
        return self._run(self.aio.slice(start, end, columns))

    def count_rows(self, filter: Any = None) -> int:
        """Number of rows, or of rows that match; without a filter nothing is read."""
        return self._run(self.aio.count_rows(filter))

    def take(self, indices: Sequence[int] | Any, columns: Any = None) -> pa.Table:
        """Rows by position among the live rows, order and duplicates kept.

        Raises:
            InvalidInputError: a position is past the end (an `OSError`).
            OverflowError: a position is negative.
        """
        return self._run(self.aio.take(indices, columns))

    def _take_rows(self, row_ids: Sequence[int] | Any, columns: Any = None) -> pa.Table:
        return self._run(self.aio._take_rows(row_ids, columns))

    def get_fragments(self) -> list[LanceFragment]:
        """The fragments of this version, in order."""
        return [LanceFragment(self, one) for one in self.aio.get_fragments()]

    def get_fragment(self, fragment_id: int) -> LanceFragment | None:
        """The fragment with this id, or None."""
        found = self.aio.get_fragment(fragment_id)
        return None if found is None else LanceFragment(self, found)

    def versions(self) -> list[dict[str, Any]]:
        """All versions, oldest first: ``version``, ``timestamp`` (local, naive) and ``metadata`` counts."""
        return self._run(self.aio.versions())

    def checkout_version(self, version: int) -> LanceDataset:
        """The dataset at another version; this handle does not move."""
        return LanceDataset(self._run(self.aio.checkout_version(version)))

    def checkout_latest(self) -> None:
        """Move this handle to the newest version."""
        self._run(self.aio.checkout_latest())

    def insert(self, data: Any, *, mode: str = "append", **options: Any) -> None:
        """Write rows into this dataset and move to the new version; options as in `write_dataset`."""
        self._run(self.aio.insert(data, mode=mode, **options))

    def delete(self, predicate: str | Any) -> dict[str, int]:
        """Delete the rows that match; returns ``{"num_deleted_rows": n}``."""
        return self._run(self.aio.delete(predicate))

    def io_stats_snapshot(self) -> Any:
        """Requests and bytes of this dataset's store so far."""
        return self.aio.io_stats_snapshot()

    def io_stats_incremental(self) -> Any:
        """Requests and bytes since the last call; resets the counters."""
        return self.aio.io_stats_incremental()


class LanceScanner:
    """A planned scan; planning did no I/O, each call runs it."""

    def __init__(self, aio: core.AsyncLanceScanner) -> None:
        self.aio = aio

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self.aio.snapshot.suspends)

    @property
    def projected_schema(self) -> pa.Schema:
        """Schema of the result."""
        return self.aio.projected_schema

    @property
    def dataset_schema(self) -> pa.Schema:
        """Schema of the dataset."""
        return self.aio.dataset_schema

    @property
    def request(self) -> ScanRequest:
        """The checked options of the scan."""
        return self.aio.request

    def to_table(self) -> pa.Table:
        """All rows as one table."""
        return self._run(self.aio.to_table())

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch."""
        stream = self._run(self.aio.to_batches())
        return iterate(stream, suspends=self.aio.snapshot.suspends)

    def to_reader(self) -> pa.RecordBatchReader:
        """A lazy Arrow reader."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.to_batches())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def to_pandas(self) -> Any:
        """All rows as a pandas data frame."""
        return self.to_table().to_pandas(use_threads=False)

    def head(self, num_rows: int) -> pa.Table:
        """The first rows of the result."""
        return self._run(self.aio.head(num_rows))

    def count_rows(self) -> int:
        """Number of rows of the result."""
        return self._run(self.aio.count_rows())

    def explain_plan(self, verbose: bool = False) -> str:
        """The plan as an indented tree."""
        return self.aio.explain_plan(verbose)

    def analyze_plan(self) -> str:
        """Run the scan; the plan with measured rows, requests, bytes and time."""
        return self._run(self.aio.analyze_plan())


class LanceFragment:
    """One fragment of a dataset version."""

    def __init__(self, dataset: LanceDataset, aio: core.AsyncLanceFragment) -> None:
        self.dataset = dataset
        self.aio = aio

    def __repr__(self) -> str:
        return repr(self.aio).replace("AsyncLance", "Lance")

    @property
    def fragment_id(self) -> int:
        """Id of the fragment."""
        return self.aio.fragment_id

    @property
    def metadata(self) -> Any:
        """The fragment as the manifest lists it."""
        return self.aio.metadata

    @property
    def physical_rows(self) -> int:
        """Rows in the data files, deleted ones included."""
        return self.aio.physical_rows

    @property
    def num_deletions(self) -> int:
        """Number of deleted rows."""
        return self.aio.num_deletions

    def data_files(self) -> list[Any]:
        """The data files."""
        return self.aio.data_files()

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> LanceScanner:
        """Plan a scan of this fragment; options as in `LanceDataset.scanner`."""
        return LanceScanner(self.aio.scanner(columns, filter, **options))

    def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:
        """All rows of a scan of this fragment."""
        return self.scanner(columns, filter, **options).to_table()

    def to_batches(self, columns: Any = None, filter: Any = None, **options: Any) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch."""
        return self.scanner(columns, filter, **options).to_batches()

    def count_rows(self, filter: Any = None) -> int:
        """Number of rows, or of matching rows."""
        return self.scanner([], filter).count_rows()

    def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        return self.to_table(**{**options, "limit": num_rows})

    def take(self, indices: Iterable[int] | Any, columns: Any = None) -> pa.Table:
        """Rows by live position within the fragment; positions must be strictly increasing."""
        return self.dataset._run(self.aio.take(indices, columns))
