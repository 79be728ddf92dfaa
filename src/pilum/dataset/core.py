"""The asynchronous dataset: one version of a table, and the calls that read and change it.

`AsyncLanceDataset` is the implementation; the synchronous `pilum.LanceDataset` drives the same coroutines
(docs/architecture.md, "Runtimes").  Its calls lie in one module for each idea: `reading`, `history`,
`configuring`, `upkeep`; here are opening and writing, and what ties them together.  Reading calls plan first (pure,
errors in names and filters), then await the metadata, then hand out rows.  Changing calls commit a new version and
move the handle to it.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pilum import table
from pilum.dataset import (
    committing,
    deleting,
    fragments,
    index_value,
    inputs,
    lance_schema,
    moments,
    references,
    updating,
    writing,
)
from pilum.dataset.configuring import Configuring
from pilum.dataset.evolution import Evolution
from pilum.dataset.handle import Settings
from pilum.dataset.history import History
from pilum.dataset.options import check_read_params, refuse_namespaces, write_options
from pilum.dataset.reading import Reading
from pilum.dataset.scanning import AsyncLanceScanner
from pilum.dataset.unbuilt import UnbuiltDataset
from pilum.dataset.upkeep import Upkeep
from pilum.errors import NotFoundError, UnsupportedError
from pilum.file import Session
from pilum.io import IoStats, LocalStore, QuerySpan, Store, store_for
from pilum.query.snapshot import Snapshot
from pilum.table import NamingScheme, latest_version, load_manifest

if TYPE_CHECKING:
    from pilum.dataset.fragment_metadata import DataFile, FragmentMetadata
    from pilum.dataset.index_value import IndexDescription
    from pilum.dataset.lance_schema import LanceSchema
    from pilum.dataset.operations import LanceOperation
    from pilum.dataset.transactions import Transaction
    from pilum.table import CommitLock

__all__ = [
    "AsyncLanceDataset",
    "AsyncLanceScanner",
    "commit",
    "commit_batch",
    "drop",
    "open_dataset",
    "write_dataset",
    "write_fragments",
]

Address = str | os.PathLike[str]


async def open_dataset(
    uri: Address | None = None,
    version: int | str | tuple[str | None, int | None] | None = None,
    asof: Any = None,
    block_size: int | None = None,
    commit_lock: CommitLock | None = None,
    index_cache_size: int | None = None,
    storage_options: Mapping[str, str] | None = None,
    default_scan_options: Mapping[str, Any] | None = None,
    metadata_cache_size_bytes: int | None = None,
    index_cache_size_bytes: int | None = None,
    read_params: Mapping[str, Any] | None = None,
    session: Session | None = None,
    namespace_client: Any = None,
    table_id: list[str] | None = None,
    base_store_params: Mapping[str, Mapping[str, str]] | None = None,
) -> AsyncLanceDataset:
    """Open a dataset at its newest or at a given version; see `pilum.dataset`."""
    refuse_namespaces(uri, namespace_client, table_id)
    check_read_params(read_params)
    assert uri is not None
    # Requests are planned from what is read, and entries of the index cache are no unit of size.
    del block_size, index_cache_size
    store = store_for(uri, storage_options, base_store_params)
    if session is None:
        session = Session(index_cache_size_bytes, metadata_cache_size_bytes)
    settings = Settings(storage_options, commit_lock, dict(default_scan_options or {}), base_store_params)
    if version is None or isinstance(version, (int, np.integer)):
        opened = await _open(store, None if version is None else _number(version), session, settings)
    else:
        found = await table.resolve(store, references.check_reference(version))
        opened = await _open(found.store, found.version, session, settings)
    if asof is not None:
        # The newest version before that moment.
        number = await table.version_at(opened.store, moments.nanoseconds_of(asof) - 1)
        opened = await _open(opened.store, number, session, settings)
    return opened


async def _open(store: Store, version: int | None, session: Session, settings: Settings) -> AsyncLanceDataset:
    with QuerySpan("open", store, version) as span:
        span.version = await latest_version(store) if version is None else version
        manifest = await load_manifest(store, span.version)
    return AsyncLanceDataset(Snapshot(store, manifest, session), settings)


def _number(version: Any) -> int:
    if isinstance(version, bool):
        raise TypeError("version must be an integer or a tag, got bool")
    return int(version)


async def write_dataset(
    data_obj: Any,
    uri: Address | AsyncLanceDataset | None = None,
    schema: pa.Schema | None = None,
    mode: str = "create",
    *,
    storage_options: Mapping[str, str] | None = None,
    session: Session | None = None,
    base_store_params: Mapping[str, Mapping[str, str]] | None = None,
    namespace_client: Any = None,
    table_id: list[str] | None = None,
    **options: Any,
) -> AsyncLanceDataset:
    """Write rows as a new dataset or a new version; see `pilum.write_dataset`."""
    refuse_namespaces(uri, namespace_client, table_id)
    base = None
    if isinstance(uri, AsyncLanceDataset):
        store, session, settings = uri.store, uri.session, uri.settings
        store.learn_base_options(base_store_params)
        base = uri.manifest if mode == "append" else None
        options.setdefault("commit_lock", settings.commit_lock)
    else:
        assert uri is not None
        store = store_for(uri, storage_options, base_store_params)
        settings = Settings(storage_options, options.get("commit_lock"), base_store_params=base_store_params)
    checked = write_options(mode, **options)
    manifest = await writing.write(store, inputs.read_input(data_obj, schema), checked, base)
    return AsyncLanceDataset(Snapshot(store, manifest, session or Session()), settings)


async def write_fragments(
    data: Any,
    dataset_uri: Address | AsyncLanceDataset,
    schema: pa.Schema | None = None,
    *,
    return_transaction: bool = False,
    mode: str = "append",
    storage_options: Mapping[str, str] | None = None,
    base_store_params: Mapping[str, Mapping[str, str]] | None = None,
    namespace_client: Any = None,
    table_id: list[str] | None = None,
    **options: Any,
) -> list[FragmentMetadata] | Transaction:
    """Write rows as fragments without committing them; see `pilum.write_fragments`."""
    store = _target(dataset_uri, storage_options, namespace_client, table_id, base_store_params)
    options.pop("session", None)
    return await fragments.write_fragments(
        store, data, schema, write_options(mode, **options), return_transaction=return_transaction
    )


async def bases_suspend(uri: Address, storage_options: Mapping[str, str] | None) -> bool:
    """Whether files of a dataset, which need not exist, lie behind a network though it does not itself."""
    store = store_for(uri, storage_options)
    try:
        manifest = await load_manifest(store, await latest_version(store), lazy=True)
    except NotFoundError:
        return False
    return table.bases_suspend(manifest.base_paths)


async def create_fragment_at(
    dataset_uri: Address | AsyncLanceDataset,
    data: Any,
    fragment_id: int | None = None,
    schema: pa.Schema | None = None,
    *,
    mode: str = "append",
    storage_options: Mapping[str, str] | None = None,
    namespace_client: Any = None,
    table_id: list[str] | None = None,
    **options: Any,
) -> FragmentMetadata:
    """Write rows as one fragment without committing it; see `pilum.LanceFragment.create`."""
    store = _target(dataset_uri, storage_options, namespace_client, table_id)
    options.pop("session", None)
    return await fragments.create_fragment(store, data, fragment_id, schema, write_options(mode, **options))


def _target(
    uri: Address | AsyncLanceDataset,
    storage_options: Mapping[str, str] | None,
    namespace_client: Any = None,
    table_id: Any = None,
    base_store_params: Mapping[str, Mapping[str, str]] | None = None,
) -> Store:
    refuse_namespaces(None if namespace_client is not None else uri, namespace_client, table_id)
    if isinstance(uri, AsyncLanceDataset):
        uri.store.learn_base_options(base_store_params)
        return uri.store
    return store_for(uri, storage_options, base_store_params)


async def commit(
    base_uri: Address | AsyncLanceDataset,
    operation: LanceOperation.BaseOperation | Transaction,
    read_version: int | None = None,
    commit_lock: CommitLock | None = None,
    storage_options: Mapping[str, str] | None = None,
    enable_v2_manifest_paths: bool | None = None,
    detached: bool | None = False,
    max_retries: int = 20,
    *,
    commit_message: str | None = None,
    enable_stable_row_ids: bool | None = None,
    base_store_params: Mapping[str, Mapping[str, str]] | None = None,
    commit_timeout: datetime.timedelta | None = None,
) -> AsyncLanceDataset:
    """Commit an operation or a transaction; see `pilum.LanceDataset.commit`."""
    store = _target(base_uri, storage_options, base_store_params=base_store_params)
    manifest = await committing.within(
        committing.commit_operation(
            store,
            operation,
            read_version,
            commit_lock=commit_lock,
            enable_v2_manifest_paths=enable_v2_manifest_paths,
            detached=detached,
            max_retries=max_retries,
            commit_message=commit_message,
            enable_stable_row_ids=enable_stable_row_ids,
            time_limit=committing.seconds_of(commit_timeout),
            seen=base_uri.manifest if isinstance(base_uri, AsyncLanceDataset) else None,
        ),
        commit_timeout,
        suspends=store.suspends,
    )
    if isinstance(base_uri, AsyncLanceDataset):
        return AsyncLanceDataset(Snapshot(store, manifest, base_uri.session), base_uri.settings)
    settings = Settings(storage_options, commit_lock, base_store_params=base_store_params)
    return AsyncLanceDataset(Snapshot(store, manifest, Session()), settings)


async def commit_batch(
    dest: Address | AsyncLanceDataset,
    transactions: Iterable[Transaction],
    commit_lock: CommitLock | None = None,
    storage_options: Mapping[str, str] | None = None,
    enable_v2_manifest_paths: bool | None = None,
    detached: bool | None = False,
    max_retries: int = 20,
    base_store_params: Mapping[str, Mapping[str, str]] | None = None,
    commit_timeout: datetime.timedelta | None = None,
) -> dict[str, Any]:
    """Commit several appends as one version: ``{"dataset": ..., "merged": Transaction}``."""
    store = _target(dest, storage_options, base_store_params=base_store_params)
    manifest, merged = await committing.within(
        committing.commit_transactions(
            store,
            list(transactions),
            commit_lock=commit_lock,
            naming=NamingScheme.V1 if enable_v2_manifest_paths is False else NamingScheme.V2,
            detached=bool(detached),
            max_retries=max_retries,
            time_limit=committing.seconds_of(commit_timeout),
        ),
        commit_timeout,
        suspends=store.suspends,
    )
    settings = Settings(storage_options, commit_lock, base_store_params=base_store_params)
    opened = AsyncLanceDataset(Snapshot(store, manifest, Session()), settings)
    return {"dataset": opened, "merged": merged}


async def drop(
    base_uri: Address, storage_options: Mapping[str, str] | None = None, ignore_not_found: bool | None = None
) -> None:
    """Remove a dataset with all its files.

    Raises:
        NotFoundError: there is none, unless that is to be ignored.
    """
    store = store_for(base_uri, storage_options)
    files = [one.path for one in await store.list("")]
    manifests = [path for path in files if "_versions/" in path]
    if not files and not ignore_not_found:
        await table.forget_versions(store, [])
        raise NotFoundError(f"no dataset at {store.uri}")
    # Manifests first: what an interrupted removal leaves is no dataset any more.
    await store.delete_many(manifests)
    await store.delete_many([path for path in files if "_versions/" not in path])
    await table.forget_versions(store, manifests)
    if isinstance(store, LocalStore):
        store.remove_empty_folders()


class AsyncLanceDataset(Reading, History, Configuring, Upkeep, Evolution, UnbuiltDataset):
    """One version of a dataset.  Immutable for readers; a changing call moves it to the version it commits."""

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def uri(self) -> str:
        """Address of the dataset; on a branch that of the main one."""
        return self.main.address()

    @property
    def lance_schema(self) -> LanceSchema:
        """Schema with field ids and logical types."""
        return lance_schema.LanceSchema(self.manifest.schema)

    @property
    def data_storage_version(self) -> str:
        """File format version of the data files, such as ``"2.2"``."""
        return ".".join(map(str, self.manifest.data_version))

    @property
    def max_field_id(self) -> int:
        """Highest field id in use; -1 without columns."""
        return table.max_field_id(self.manifest)

    @property
    def has_stable_row_ids(self) -> bool:
        """Whether rows keep their ids when they move."""
        return self.manifest.uses_stable_row_ids

    @property
    def has_index(self) -> bool:
        """Whether there is an index."""
        return bool(self.manifest.indices)

    @property
    def partition_expression(self) -> Any:
        """Not supported: Lance has no partitions."""
        raise UnsupportedError("partition_expression: partitioning is not supported")

    def list_indices(self) -> list[dict[str, Any]]:
        """The segments of the indices."""
        return index_value.list_indices(self.manifest)

    def describe_indices(self) -> list[IndexDescription]:
        """The indices, each with its segments."""
        return index_value.describe_indices(self.manifest)

    def index_statistics(self, index_name: str) -> dict[str, Any]:
        """Statistics of an index."""
        return self.stats.index_stats(index_name)

    @property
    def initial_storage_options(self) -> dict[str, str] | None:
        """The storage options the dataset was opened with."""
        return dict(self.settings.storage_options) if self.settings.storage_options is not None else None

    def latest_storage_options(self) -> dict[str, str] | None:
        """The storage options in use."""
        return self.initial_storage_options

    def __repr__(self) -> str:
        manifest = self.manifest
        return (
            f"{type(self).__name__}(uri={self.uri!r}, version={self.version}, "
            f"fragments={len(manifest.fragments)}, rows={manifest.num_rows})"
        )

    # -- changing --------------------------------------------------------------------------------------

    async def insert(self, data: Any, *, mode: str = "append", **options: Any) -> None:
        """Write rows into this dataset and move to the new version."""
        written = await write_dataset(data, self, mode=mode, **options)
        self.snapshot = written.snapshot

    async def delete(
        self,
        predicate: str | Any,
        *,
        conflict_retries: int = 10,
        retry_timeout: datetime.timedelta = datetime.timedelta(seconds=30),
    ) -> dict[str, int]:
        """Delete the rows that match; returns ``{"num_deleted_rows": n}``.

        Writes deletion files and commits a new version, also when nothing matched.
        """
        manifest, deleted = await deleting.delete_rows(
            self.snapshot,
            predicate,
            conflict_retries=conflict_retries,
            retry_timeout=retry_timeout,
            commit_lock=self.settings.commit_lock,
        )
        self._move(manifest)
        return {"num_deleted_rows": deleted}

    async def update(
        self,
        updates: Mapping[str, str],
        where: str | Any = None,
        *,
        conflict_retries: int = 10,
        retry_timeout: datetime.timedelta = datetime.timedelta(seconds=30),
        data_storage_version: str | None = None,
    ) -> dict[str, int]:
        """Give columns of the rows that match new values; returns ``{"num_rows_updated": n}``.

        Changed rows move to new fragments.  A new version is committed also when nothing matched.
        """
        if data_storage_version not in (None, "stable", self.data_storage_version):
            raise UnsupportedError("data_storage_version: new files have the format of the table")
        manifest, updated = await updating.update_rows(
            self.snapshot,
            updates,
            where,
            conflict_retries=conflict_retries,
            retry_timeout=retry_timeout,
            commit_lock=self.settings.commit_lock,
        )
        self._move(manifest)
        return {"num_rows_updated": updated}

    async def truncate_table(self) -> None:
        """Delete all rows."""
        await self.delete("true")

    # -- files made elsewhere --------------------------------------------------------------------------

    async def describe_data_file(self, path: str, base_id: int | None = None) -> DataFile:
        """A file that lies in the data folder already, as `DataFile`."""
        described, _ = await fragments.describe_data_file(self, path, base_id)
        return described

    async def fragment_from_file(self, filename: str, fragment_id: int) -> FragmentMetadata:
        """A file that lies in the data folder already, as a fragment that can be committed."""
        return await fragments.fragment_from_file(self, filename, fragment_id)

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
        return _reopen, (self.store, self.version, self.settings)


def _reopen(store: Store, version: int, settings: Settings) -> AsyncLanceDataset:
    from pilum.io import run

    return run(_open(store, version, Session(), settings), suspends=store.suspends)
