"""The asynchronous dataset: one version of a table, and the calls that read and change it.

`AsyncLanceDataset` is the implementation; the synchronous `pilum.LanceDataset` drives the same coroutines
(docs/architecture.md, "Runtimes").  Reading calls plan first (pure, errors in names and filters), then await
the metadata, then hand out rows.  Changing calls commit a new version and move the handle to it.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import pyarrow as pa

from pilum.dataset.deleting import delete_rows
from pilum.dataset.inputs import read_input
from pilum.dataset.writing import WriteOptions, write
from pilum.errors import InvalidInputError
from pilum.file import Session
from pilum.io import IoStats, Store, current_runtime, store_for
from pilum.query.analyze import analyze
from pilum.query.explain import explain
from pilum.query.projection import resolve
from pilum.query.request import Nearest, ScanRequest
from pilum.query.scan import count, open_scan, plan_scan, scan_table
from pilum.query.search import plan_search, search
from pilum.query.snapshot import Snapshot
from pilum.query.take import take_addresses, take_positions
from pilum.schema import Schema
from pilum.table import Fragment, Manifest, latest_version, list_versions, load_manifest

__all__ = ["AsyncLanceDataset", "AsyncLanceFragment", "AsyncLanceScanner", "open_dataset", "write_dataset"]


async def open_dataset(
    uri: str | os.PathLike[str],
    version: int | None = None,
    *,
    storage_options: Mapping[str, str] | None = None,
    session: Session | None = None,
) -> AsyncLanceDataset:
    """Open a dataset at its newest or at a given version.

    Args:
        uri: a path, ``file://`` or ``memory://`` address.
        version: version number; the newest by default.
        storage_options: options of the store.
        session: caches to share with other datasets; a private session by default.

    Raises:
        NotFoundError: there is no dataset, or it has no such version.
    """
    store = store_for(uri, storage_options)
    return await _open(store, version, session or Session(), storage_options)


async def _open(
    store: Store, version: int | None, session: Session, storage_options: Mapping[str, str] | None
) -> AsyncLanceDataset:
    if version is not None and (isinstance(version, bool) or not isinstance(version, (int, np.integer))):
        raise TypeError(f"version must be an integer, got {type(version).__name__}")
    number = await latest_version(store) if version is None else int(version)
    manifest = await load_manifest(store, number)
    return AsyncLanceDataset(Snapshot(store, manifest, session), storage_options)


async def write_dataset(
    data: Any,
    uri: str | os.PathLike[str] | AsyncLanceDataset,
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
) -> AsyncLanceDataset:
    """Write rows as a new dataset or a new version; see `pilum.write_dataset`."""
    properties = dict(transaction_properties or {})
    if commit_message is not None:
        properties["__lance_commit_message"] = commit_message
    options = WriteOptions(
        mode=mode,
        max_rows_per_file=max_rows_per_file,
        max_bytes_per_file=max_bytes_per_file,
        data_storage_version=data_storage_version,
        properties=properties or None,
    )
    if isinstance(uri, AsyncLanceDataset):
        store, session, storage_options = uri.snapshot.store, uri.snapshot.session, uri.storage_options
    else:
        store = store_for(uri, storage_options)
    manifest = await write(store, read_input(data, schema), options)
    return AsyncLanceDataset(Snapshot(store, manifest, session or Session()), storage_options)


class AsyncLanceDataset:
    """One version of a dataset.  Immutable for readers; `delete` and `insert` move it to the new version."""

    def __init__(self, snapshot: Snapshot, storage_options: Mapping[str, str] | None = None) -> None:
        self.snapshot = snapshot
        self.storage_options = storage_options

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def uri(self) -> str:
        """Address of the dataset."""
        return self.snapshot.store.uri

    @property
    def version(self) -> int:
        """Version number of this handle."""
        return self.snapshot.manifest.version

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the dataset."""
        return self.snapshot.manifest.schema.to_arrow()

    @property
    def lance_schema(self) -> Schema:
        """Schema with field ids and logical types."""
        return self.snapshot.manifest.schema

    @property
    def data_storage_version(self) -> str:
        """File format version of the data files, such as ``"2.2"``."""
        return ".".join(map(str, self.snapshot.manifest.data_version))

    @property
    def session(self) -> Session:
        """The caches this handle uses."""
        return self.snapshot.session

    @property
    def manifest(self) -> Manifest:
        """The decoded manifest of this version."""
        return self.snapshot.manifest

    def __repr__(self) -> str:
        fragments = len(self.snapshot.manifest.fragments)
        return f"<{type(self).__name__} {self.uri} version {self.version}, {fragments} fragments>"

    # -- reading ---------------------------------------------------------------------------------------

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> AsyncLanceScanner:
        """Plan a scan; see `pilum.LanceDataset.scanner` for the options."""
        return AsyncLanceScanner(self.snapshot, scan_request(columns=columns, filter=filter, **options))

    async def to_table(self, columns: Any = None, filter: Any = None, **options: Any) -> pa.Table:
        """All rows of a scan as one table."""
        return await self.scanner(columns, filter, **options).to_table()

    async def to_batches(
        self, columns: Any = None, filter: Any = None, **options: Any
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches: the await initialises the first fragments."""
        return await self.scanner(columns, filter, **options).to_batches()

    async def head(self, num_rows: int, **options: Any) -> pa.Table:
        """The first rows."""
        return await self.to_table(**{**options, "limit": num_rows})

    async def slice(self, start: int, end: int, columns: Any = None) -> pa.Table:
        """Rows ``[start, end)`` by position, cut at the end of the table."""
        if start < 0 or end < start:
            raise InvalidInputError(f"slice needs 0 <= start <= end, got {start} and {end}")
        return await self.to_table(columns=columns, offset=start, limit=end - start)

    async def count_rows(self, filter: Any = None) -> int:
        """Number of rows, or of rows that match a filter; without a filter nothing is read."""
        return await AsyncLanceScanner(self.snapshot, scan_request(columns=[], filter=filter)).count_rows()

    async def take(self, indices: Sequence[int] | Any, columns: Any = None) -> pa.Table:
        """Rows by position, order and duplicates kept."""
        projection = resolve(self.snapshot.manifest.schema, columns)
        return await take_positions(
            self.snapshot, self.snapshot.manifest.fragments, _positions(indices), projection
        )

    async def _take_rows(self, row_ids: Sequence[int] | Any, columns: Any = None) -> pa.Table:
        """Rows by row id, order and duplicates kept."""
        projection = resolve(self.snapshot.manifest.schema, columns)
        addresses = np.asarray(row_ids, dtype=np.uint64)
        stored = await take_addresses(self.snapshot, addresses, projection.read)
        return pa.Table.from_batches([projection.build(stored, addresses)], schema=projection.schema)

    def get_fragments(self) -> list[AsyncLanceFragment]:
        """The fragments of this version, in order."""
        return [AsyncLanceFragment(self, fragment) for fragment in self.snapshot.manifest.fragments]

    def get_fragment(self, fragment_id: int) -> AsyncLanceFragment | None:
        """The fragment with this id, or None."""
        return next((one for one in self.get_fragments() if one.fragment_id == fragment_id), None)

    # -- versions --------------------------------------------------------------------------------------

    async def versions(self) -> list[dict[str, Any]]:
        """All versions, oldest first: ``version``, ``timestamp`` (local, naive) and ``metadata`` counts."""
        store = self.snapshot.store
        numbers = sorted(await list_versions(store))

        async def load(number: int) -> Manifest:
            return await load_manifest(store, number)

        stream = current_runtime().map_ordered(load, numbers, window=64, suspends=store.suspends, chunk=8)
        async with aclosing(stream):
            return [_describe(manifest) async for manifest in stream]

    async def latest_version(self) -> int:
        """Newest version number in the store; reads no manifest."""
        return await latest_version(self.snapshot.store)

    async def checkout_version(self, version: int) -> AsyncLanceDataset:
        """The dataset at another version; this handle does not move."""
        return await _open(self.snapshot.store, version, self.snapshot.session, self.storage_options)

    async def checkout_latest(self) -> None:
        """Move this handle to the newest version."""
        newest = await latest_version(self.snapshot.store)
        if newest != self.version:
            self._move(await load_manifest(self.snapshot.store, newest))

    # -- changing --------------------------------------------------------------------------------------

    async def insert(self, data: Any, *, mode: str = "append", **options: Any) -> None:
        """Write rows into this dataset and move to the new version."""
        written = await write_dataset(data, self, mode=mode, **options)
        self.snapshot = written.snapshot

    async def delete(self, predicate: str | Any) -> dict[str, int]:
        """Delete the rows that match; returns ``{"num_deleted_rows": n}``.

        Writes deletion files and commits a new version, also when nothing matched.
        """
        manifest, deleted = await delete_rows(self.snapshot, predicate)
        self._move(manifest)
        return {"num_deleted_rows": deleted}

    def _move(self, manifest: Manifest) -> None:
        self.snapshot = Snapshot(self.snapshot.store, manifest, self.snapshot.session)

    # -- counters --------------------------------------------------------------------------------------

    def io_stats_snapshot(self) -> Any:
        """Requests and bytes of this dataset's store so far."""
        stats: IoStats = self.snapshot.store.stats
        return stats.snapshot()

    def io_stats_incremental(self) -> Any:
        """Requests and bytes since the last call; resets the counters."""
        stats: IoStats = self.snapshot.store.stats
        return stats.incremental()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.uri, self.version, dict(self.storage_options or {}) or None)


def _reopen(uri: str, version: int, storage_options: Mapping[str, str] | None) -> AsyncLanceDataset:
    from pilum.io import run

    store = store_for(uri, storage_options)
    return run(_open(store, version, Session(), storage_options), suspends=store.suspends)


class AsyncLanceScanner:
    """A planned scan.  Planning did no I/O; each call runs it."""

    def __init__(self, snapshot: Snapshot, request: ScanRequest) -> None:
        self.snapshot = snapshot
        self.request = request
        self._plan: Any = (
            plan_search(snapshot, request) if request.nearest is not None else plan_scan(snapshot, request)
        )

    @property
    def projected_schema(self) -> pa.Schema:
        """Schema of the result."""
        return self._plan.projection.schema

    @property
    def dataset_schema(self) -> pa.Schema:
        """Schema of the dataset."""
        return self.snapshot.manifest.schema.to_arrow()

    async def to_table(self) -> pa.Table:
        """All rows as one table."""
        if self.request.nearest is not None:
            return await search(self._plan)
        return await scan_table(self._plan)

    async def to_batches(self) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches.  Close it (``aclosing``) when it is not read to the end."""
        if self.request.nearest is not None:
            return _stream_of(await search(self._plan))
        return await open_scan(self._plan)

    async def head(self, num_rows: int) -> pa.Table:
        """The first rows of the result."""
        return await AsyncLanceScanner(self.snapshot, self.request.updated(limit=num_rows)).to_table()

    async def count_rows(self) -> int:
        """Number of rows of the result; only the filter's columns are read."""
        if self.request.limit is not None or self.request.offset is not None:
            raise InvalidInputError("count_rows does not combine with limit or offset")
        if self.request.nearest is not None:
            return int((await self.to_table()).num_rows)
        return await count(self._plan)

    def explain_plan(self, verbose: bool = False) -> str:
        """The plan as an indented tree."""
        return explain(self._plan, verbose=verbose)

    async def analyze_plan(self) -> str:
        """Run the scan and return the plan with measured rows, requests, bytes and time."""
        return await analyze(self._plan, self.to_table)


class AsyncLanceFragment:
    """One fragment of a dataset version."""

    def __init__(self, dataset: AsyncLanceDataset, fragment: Fragment) -> None:
        self.dataset = dataset
        self.metadata = fragment

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fragment_id}, {self.metadata.num_rows} rows>"

    @property
    def fragment_id(self) -> int:
        """Id of the fragment, unique in the history of the table."""
        return self.metadata.id

    @property
    def physical_rows(self) -> int:
        """Rows in the data files, deleted ones included."""
        return self.metadata.physical_rows

    @property
    def num_deletions(self) -> int:
        """Number of deleted rows."""
        return self.metadata.physical_rows - self.metadata.num_rows

    def data_files(self) -> list[Any]:
        """The data files."""
        return list(self.metadata.files)

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> AsyncLanceScanner:
        """Plan a scan of this fragment."""
        return self.dataset.scanner(columns, filter, fragments=[self], **options)

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
        positions = _positions(indices)
        if len(positions) > 1 and bool((np.diff(positions) <= 0).any()):
            raise InvalidInputError("fragment take needs strictly increasing positions")
        snapshot = self.dataset.snapshot
        return await take_positions(
            snapshot, [self.metadata], positions, resolve(snapshot.manifest.schema, columns)
        )


def scan_request(
    *,
    nearest: Mapping[str, Any] | None = None,
    fragments: Iterable[Any] | None = None,
    **options: Any,
) -> ScanRequest:
    """Check the keyword options of a scan and freeze them.

    Raises:
        TypeError: an option does not exist.
    """
    unknown = set(options) - _OPTIONS
    if unknown:
        raise TypeError(
            f"scan got an unexpected option {sorted(unknown)[0]!r}; known: {', '.join(sorted(_OPTIONS))}"
        )
    chosen = {name: value for name, value in options.items() if value is not None and name in _USED}
    if fragments is not None:
        chosen["fragment_ids"] = tuple(getattr(one, "fragment_id", one) for one in fragments)
    if nearest is not None:
        chosen["nearest"] = Nearest.parse(nearest)
    return ScanRequest(**chosen)


_USED = frozenset(
    {
        "columns",
        "filter",
        "limit",
        "offset",
        "prefilter",
        "with_row_id",
        "with_row_address",
        "batch_size",
        "batch_readahead",
        "fragment_readahead",
        "io_buffer_size",
        "strict_batch_size",
    }
)
# Accepted because they only steer how a read is done, which a scan without indices decides itself.
_OPTIONS = _USED | {"scan_in_order", "use_stats", "use_scalar_index", "fast_search", "late_materialization"}


def _positions(indices: Any) -> Any:
    if isinstance(indices, (pa.Array, pa.ChunkedArray)):
        indices = (
            indices.to_numpy(zero_copy_only=False) if isinstance(indices, pa.Array) else indices.to_numpy()
        )
    array = np.asarray(indices if len(indices) else [], dtype=None if len(indices) else np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"row positions must be integers, got {array.dtype}")
    return array.astype(np.int64)


def _describe(manifest: Manifest) -> dict[str, Any]:
    fragments = manifest.fragments
    files = [data_file for fragment in fragments for data_file in fragment.files]
    deletions = [fragment for fragment in fragments if fragment.deletion_file is not None]
    counts = {
        "total_rows": sum(fragment.num_rows for fragment in fragments),
        "total_fragments": len(fragments),
        "total_data_files": len(files),
        "total_data_file_rows": sum(fragment.physical_rows for fragment in fragments),
        "total_deletion_files": len(deletions),
        "total_deletion_file_rows": sum(fragment.physical_rows - fragment.num_rows for fragment in deletions),
        "total_files_size": sum(data_file.size or 0 for data_file in files),
    }
    return {
        "version": manifest.version,
        "timestamp": datetime.datetime.fromtimestamp(manifest.timestamp_ns / 1e9),
        "metadata": {name: str(value) for name, value in counts.items()},
    }


async def _stream_of(table: pa.Table) -> AsyncGenerator[pa.RecordBatch, None]:
    for batch in table.to_batches():
        yield batch
