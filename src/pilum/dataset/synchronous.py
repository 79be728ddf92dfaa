"""The synchronous dataset: the calls of `pilum.dataset.core`, driven to their end.

Every method hands the same coroutine to `pilum.io.run`: on local disks and in memory it runs right here, on
the calling thread; for remote stores on one background loop.  There is no second implementation.  The methods
lie in `pilum.dataset.door`, one module for each idea; here are opening, writing and committing.
"""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum.dataset import core, display
from pilum.dataset.door.evolution import EvolutionDoor
from pilum.dataset.door.history import HistoryDoor
from pilum.dataset.door.reading import ReadingDoor
from pilum.dataset.door.scanner import LanceScanner
from pilum.dataset.door.upkeep import UpkeepDoor
from pilum.dataset.options import refuse_namespaces
from pilum.dataset.unbuilt import UnbuiltDataset
from pilum.file import Session
from pilum.file import synchronous as file_doors
from pilum.io import address_suspends, run
from pilum.table import Manifest

if TYPE_CHECKING:
    from pilum.dataset.fragment_metadata import DataFile, FragmentMetadata
    from pilum.dataset.index_value import IndexDescription
    from pilum.dataset.lance_schema import LanceSchema
    from pilum.dataset.operations import LanceOperation
    from pilum.dataset.transactions import Transaction
    from pilum.file.synchronous import LanceFileSession
    from pilum.table import CommitLock

__all__ = ["LanceDataset", "LanceScanner", "dataset", "write_dataset", "write_fragments"]

_HALF_A_MINUTE = datetime.timedelta(seconds=30)
_HALF_AN_HOUR = datetime.timedelta(seconds=1800)


def dataset(
    uri: str | os.PathLike[str] | None = None,
    version: int | str | tuple[str | None, int | None] | None = None,
    asof: datetime.datetime | str | None = None,
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
) -> LanceDataset:
    """Open a dataset.

    Args:
        uri: a path, ``file://`` or ``memory://`` address.
        version: version number, name of a tag, or (branch, version) where None means main and the newest; the
            newest version of main by default.
        asof: the newest version before this moment (local time without a time zone).
        block_size: accepted; requests are planned from what is read.
        commit_lock: called with the version about to be published; the context manager it returns is held
            meanwhile.
        index_cache_size: deprecated.
        storage_options: options of the store (README, "Object stores"), or a function that returns them.
        default_scan_options: options for every scan of this dataset, such as ``{"with_row_id": True}``.
        metadata_cache_size_bytes, index_cache_size_bytes: sizes of the caches of a private session.
        read_params: ``cache_repetition_index`` and ``validate_on_decode`` are accepted.
        session: caches to share with other datasets; a private session by default.
        namespace_client, table_id: not supported yet.
        base_store_params: storage options of base paths, by their address.

    Raises:
        NotFoundError: (a `ValueError` and `FileNotFoundError`) no dataset, or no such version or tag.

    Example:
        >>> import pilum, pyarrow as pa
        >>> _ = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-open")
        >>> pilum.dataset("memory://doc-open").count_rows("a > 1")
        2
    """
    if index_cache_size is not None:
        warnings.warn(
            "index_cache_size is deprecated, use index_cache_size_bytes", DeprecationWarning, stacklevel=2
        )
    coroutine = core.open_dataset(
        uri,
        version,
        asof,
        block_size,
        commit_lock,
        index_cache_size,
        storage_options,
        default_scan_options,
        metadata_cache_size_bytes,
        index_cache_size_bytes,
        read_params,
        session,
        namespace_client,
        table_id,
        base_store_params,
    )
    return LanceDataset.of(run(coroutine, suspends=_suspends(uri)))


def write_dataset(
    data_obj: Any,
    uri: str | os.PathLike[str] | LanceDataset | None = None,
    schema: pa.Schema | None = None,
    mode: str = "create",
    *,
    max_rows_per_file: int = 1 << 20,
    max_rows_per_group: int | None = 1024,
    max_bytes_per_file: int = 90 << 30,
    data_cache_bytes: int | None = None,
    max_page_bytes: int | None = None,
    commit_lock: CommitLock | None = None,
    progress: Any = None,
    storage_options: Mapping[str, str] | None = None,
    data_storage_version: str | None = None,
    use_legacy_format: bool | None = None,
    enable_v2_manifest_paths: bool = True,
    enable_stable_row_ids: bool = False,
    auto_cleanup_options: Mapping[str, int] | None = None,
    commit_message: str | None = None,
    transaction_properties: Mapping[str, str] | None = None,
    initial_bases: Any = None,
    target_bases: list[str] | None = None,
    target_all_bases: bool | None = None,
    base_store_params: Mapping[str, Mapping[str, str]] | None = None,
    external_blob_mode: str = "reference",
    allow_external_blob_outside_bases: bool = False,
    blob_pack_file_size_threshold: int | None = None,
    namespace_client: Any = None,
    table_id: list[str] | None = None,
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
        max_rows_per_group: accepted.
        max_bytes_per_file: soft limit on the size of a data file, checked between batches.
        data_cache_bytes: accepted.
        max_page_bytes: most bytes of a page of one column.
        commit_lock: called with the version about to be published; the context manager it returns is held
            meanwhile.
        progress: a `FragmentWriteProgress`, told about every fragment.
        storage_options: options of the store (README, "Object stores"), or a function that returns them.
        data_storage_version: file format, ``"2.2"`` (= ``"stable"``, the default), ``"2.1"`` or ``"2.0"``; on
            append the version of the dataset.
        use_legacy_format: deprecated.
        enable_v2_manifest_paths: how a new dataset names its manifests.
        enable_stable_row_ids: rows of a new dataset keep their ids when they move.
        auto_cleanup_options: for a new dataset: every ``interval``-th commit removes versions older than
            ``older_than_seconds``.
        commit_message: stored in the transaction.
        transaction_properties: further properties of the transaction.
        initial_bases: base paths of a new dataset: other places, each a `DatasetBasePath`, that its files may lie in.
            Those without an id get the first free ones from 1.
        target_bases: base paths to write the data files to, in turns: their names or addresses; the address of the
            dataset itself is one of them.  Everything else stays in the dataset's own folder.
        target_all_bases: write to all base paths in turns, in the order of their ids; True: and to the dataset's own
            folder, which is first.
        base_store_params: storage options of base paths, by their address.
        external_blob_mode, allow_external_blob_outside_bases, blob_pack_file_size_threshold: for blobs, which
            are not supported yet.
        namespace_client, table_id: not supported yet.
        session: caches the returned dataset uses.

    Raises:
        AlreadyExistsError: ``mode="create"`` and the dataset exists (an `OSError`).
        InvalidInputError: the rows do not fit, or the base paths do not (an `OSError` and a `ValueError`).

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-write")
        >>> ds = pilum.write_dataset([{"a": 4}], "memory://doc-write", mode="append")
        >>> ds.version, ds.count_rows()
        (2, 4)
    """
    if use_legacy_format is not None:
        warnings.warn(
            "use_legacy_format is deprecated, use data_storage_version", DeprecationWarning, stacklevel=2
        )
    suspends = _writing_suspends(uri, storage_options, initial_bases, target_bases, target_all_bases)
    coroutine = core.write_dataset(
        data_obj,
        uri.aio if isinstance(uri, LanceDataset) else uri,
        schema,
        mode,
        max_rows_per_file=max_rows_per_file,
        max_rows_per_group=max_rows_per_group,
        max_bytes_per_file=max_bytes_per_file,
        data_cache_bytes=data_cache_bytes,
        max_page_bytes=max_page_bytes,
        **({} if commit_lock is None else {"commit_lock": commit_lock}),
        progress=progress,
        storage_options=storage_options,
        data_storage_version=data_storage_version,
        use_legacy_format=use_legacy_format,
        enable_v2_manifest_paths=enable_v2_manifest_paths,
        enable_stable_row_ids=enable_stable_row_ids,
        auto_cleanup_options=auto_cleanup_options,
        commit_message=commit_message,
        transaction_properties=transaction_properties,
        initial_bases=initial_bases,
        target_bases=target_bases,
        target_all_bases=target_all_bases,
        base_store_params=base_store_params,
        external_blob_mode=external_blob_mode,
        allow_external_blob_outside_bases=allow_external_blob_outside_bases,
        blob_pack_file_size_threshold=blob_pack_file_size_threshold,
        namespace_client=namespace_client,
        table_id=table_id,
        session=session,
    )
    return LanceDataset.of(run(coroutine, suspends=suspends))


def write_fragments(
    data: Any,
    dataset_uri: str | os.PathLike[str] | LanceDataset,
    schema: pa.Schema | None = None,
    *,
    return_transaction: bool = False,
    mode: str = "append",
    storage_options: Mapping[str, str] | None = None,
    **options: Any,
) -> list[FragmentMetadata] | Transaction:
    """Write rows as fragments without committing them: the part of a distributed write that workers do.

    Args:
        data: rows, as for `write_dataset`.
        dataset_uri: the dataset, which need not exist, or an open one.
        schema: needed for iterators of batches.
        return_transaction: return a `Transaction` that commits the fragments, instead of the fragments.
        mode: ``append``, ``create`` or ``overwrite``; what they are to be committed with.
        storage_options: options of the store (README, "Object stores"), or a function that returns them.
        options: limits, formats and base paths, as for `write_dataset`.  Fragments in base paths of a new dataset
            are committed with the transaction: it brings the base paths.

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1]}), "memory://doc-fragments")
        >>> made = pilum.write_fragments(pa.table({"a": [2, 3]}), ds)
        >>> pilum.LanceDataset.commit(ds, pilum.LanceOperation.Append(made), read_version=ds.version).count_rows()
        3
    """
    suspends = _writing_suspends(dataset_uri, storage_options, **options)
    coroutine = core.write_fragments(
        data,
        dataset_uri.aio if isinstance(dataset_uri, LanceDataset) else dataset_uri,
        schema,
        return_transaction=return_transaction,
        mode=mode,
        storage_options=storage_options,
        **options,
    )
    return run(coroutine, suspends=suspends)


def _suspends(uri: Any) -> bool:
    if isinstance(uri, LanceDataset):
        return uri.aio.snapshot.suspends
    return uri is not None and address_suspends(uri)


def _writing_suspends(
    uri: Any,
    storage_options: Any,
    initial_bases: Any = None,
    target_bases: Any = None,
    target_all_bases: bool | None = None,
    **_: Any,
) -> bool:
    """Whether writing may wait for a network: the files may go to another place than the dataset."""
    if _suspends(uri):
        return True
    if any(address_suspends(base.path) for base in initial_bases or () if hasattr(base, "path")):
        return True
    elsewhere = bool(target_bases) or target_all_bases is not None
    if not elsewhere or uri is None or isinstance(uri, LanceDataset):
        return False
    return run(core.bases_suspend(uri, storage_options), suspends=False)


class LanceDataset(ReadingDoor, HistoryDoor, UpkeepDoor, EvolutionDoor, UnbuiltDataset):
    """One version of a dataset.

    Reading never changes it; changing calls move it to the version they commit.  It may be used from many threads,
    pickled to other processes, and used after ``fork()``.  The asynchronous twin is `aio`.

    Args:
        uri, version, ...: as for `pilum.dataset`, which is the usual way to get one.
        metadata_cache_size: deprecated.
        serialized_manifest, namespace_client_managed_versioning: accepted; the manifest is read again.
    """

    poses_as = "Dataset"

    def __init__(
        self,
        uri: str | os.PathLike[str],
        version: int | str | tuple[str | None, int | None] | None = None,
        block_size: int | None = None,
        index_cache_size: int | None = None,
        metadata_cache_size: int | None = None,
        commit_lock: CommitLock | None = None,
        storage_options: Mapping[str, str] | None = None,
        serialized_manifest: bytes | None = None,
        default_scan_options: Mapping[str, Any] | None = None,
        metadata_cache_size_bytes: int | None = None,
        index_cache_size_bytes: int | None = None,
        read_params: Mapping[str, Any] | None = None,
        session: Session | None = None,
        namespace_client: Any = None,
        table_id: list[str] | None = None,
        namespace_client_managed_versioning: bool = False,
        base_store_params: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        del serialized_manifest, namespace_client_managed_versioning
        if metadata_cache_size is not None:
            warnings.warn(
                "metadata_cache_size is deprecated, use metadata_cache_size_bytes",
                DeprecationWarning,
                stacklevel=2,
            )
        self.aio = dataset(
            uri,
            version,
            None,
            block_size,
            commit_lock,
            index_cache_size,
            storage_options,
            default_scan_options,
            metadata_cache_size_bytes,
            index_cache_size_bytes,
            read_params,
            session,
            namespace_client,
            table_id,
            base_store_params,
        ).aio

    def __repr__(self) -> str:
        return repr(self.aio).replace("AsyncLance", "Lance", 1)

    def _repr_html_(self) -> str:
        return display.as_html(self.uri, self.aio.manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.own_class().of, (self.aio,)

    def __copy__(self) -> LanceDataset:
        return self.of(core.AsyncLanceDataset(self.aio.snapshot, self.aio.settings))

    # -- what it is ------------------------------------------------------------------------------------

    @property
    def uri(self) -> str:
        """Address of the dataset; on a branch that of the main one."""
        return self.aio.uri

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema, with the system columns that the default scan options add."""
        return self.aio.schema

    @property
    def lance_schema(self) -> LanceSchema:
        """Schema with field ids and logical types."""
        return self.aio.lance_schema

    @property
    def data_storage_version(self) -> str:
        """File format version of the data files, such as ``"2.2"``."""
        return self.aio.data_storage_version

    @property
    def max_field_id(self) -> int:
        """Highest field id in use; -1 without columns."""
        return self.aio.max_field_id

    @property
    def has_stable_row_ids(self) -> bool:
        """Whether rows keep their ids when they move."""
        return self.aio.has_stable_row_ids

    @property
    def has_index(self) -> bool:
        """Whether there is an index."""
        return self.aio.has_index

    @property
    def manifest(self) -> Manifest:
        """The decoded manifest of this version."""
        return self.aio.manifest

    @property
    def partition_expression(self) -> Any:
        """Not supported: Lance has no partitions."""
        return self.aio.partition_expression

    def session(self) -> Session:
        """The caches this handle uses; pass it to `pilum.dataset` to share them."""
        return self.aio.session

    def list_indices(self) -> list[dict[str, Any]]:
        """Deprecated: the segments of the indices; use `describe_indices`."""
        warnings.warn("list_indices is deprecated, use describe_indices", DeprecationWarning, stacklevel=2)
        return self.aio.list_indices()

    def describe_indices(self) -> list[IndexDescription]:
        """The indices, each with its segments."""
        return self.aio.describe_indices()

    def index_statistics(self, index_name: str) -> dict[str, Any]:
        """Statistics of an index.

        Raises:
            KeyError: there is no such index.
        """
        return self.aio.index_statistics(index_name)

    @property
    def initial_storage_options(self) -> dict[str, str] | None:
        """The storage options the dataset was opened with."""
        return self.aio.initial_storage_options

    @property
    def storage_options_accessor(self) -> Any:
        """What renews storage options; there is nothing that does."""
        return None

    def latest_storage_options(self) -> dict[str, str] | None:
        """The storage options in use."""
        return self.aio.latest_storage_options()

    # -- changing --------------------------------------------------------------------------------------

    def insert(self, data: Any, *, mode: str = "append", **options: Any) -> None:
        """Write rows into this dataset and move to the new version; options as in `write_dataset`."""
        self._run(self.aio.insert(data, mode=mode, **options))

    def delete(
        self,
        predicate: str | Any,
        *,
        conflict_retries: int = 10,
        retry_timeout: datetime.timedelta = _HALF_A_MINUTE,
    ) -> dict[str, int]:
        """Delete the rows that match; returns ``{"num_deleted_rows": n}``.

        Writes deletion files and commits a new version, also when nothing matched.

        Args:
            predicate: SQL text or a ``pyarrow.compute.Expression``; ``"true"`` deletes everything.
            conflict_retries: how often to start over when others changed the same fragments.
            retry_timeout: time after which it is not started over any more.

        Raises:
            InvalidInputError: bad predicate (an `OSError` and a `ValueError`).
            CommitConflictError: others kept changing the same fragments.
        """
        return self._run(
            self.aio.delete(predicate, conflict_retries=conflict_retries, retry_timeout=retry_timeout)
        )

    def truncate_table(self) -> None:
        """Delete all rows."""
        self._run(self.aio.truncate_table())

    @staticmethod
    def commit(
        base_uri: str | os.PathLike[str] | LanceDataset,
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
        namespace_client: Any = None,
        table_id: list[str] | None = None,
        namespace_client_managed_versioning: bool = False,
        base_store_params: Mapping[str, Mapping[str, str]] | None = None,
        commit_timeout: datetime.timedelta | None = _HALF_AN_HOUR,
    ) -> LanceDataset:
        """Commit an operation that was put together elsewhere.

        Args:
            base_uri: the dataset; with `LanceOperation.Overwrite` it need not exist.
            operation: the operation, or a `Transaction` with its own version and properties.
            read_version: version it was computed on; only Overwrite and Restore may leave it out.
            commit_lock: held while the version is published.
            storage_options: options of the store (README, "Object stores"), or a function that returns them.
            enable_v2_manifest_paths: how a new dataset names its manifests.
            detached: make a version outside of the history, found only by its number.
            max_retries: attempts when other writers are faster.
            commit_message: stored in the transaction.
            enable_stable_row_ids: rows of a new dataset keep their ids when they move.
            namespace_client, table_id, namespace_client_managed_versioning: not supported yet.
            base_store_params: storage options of base paths, by their address.
            commit_timeout: time limit; a commit on a local disk looks at it before every attempt.

        Returns:
            The dataset at the new version.

        Raises:
            InvalidInputError: ``read_version`` is missing, or the operation does not fit the dataset.
            TypeError: not an operation.
            CommitConflictError: what others committed meanwhile excludes it; ``retryable`` says whether doing it
                again on the newest version can succeed.
            TimeoutError: it took longer than ``commit_timeout``.
            NotFoundError: there is no dataset, or no such version.
        """
        del namespace_client_managed_versioning
        refuse_namespaces(
            base_uri if namespace_client is None and table_id is None else None, namespace_client, table_id
        )
        coroutine = core.commit(
            base_uri.aio if isinstance(base_uri, LanceDataset) else base_uri,
            operation,
            read_version,
            commit_lock,
            storage_options,
            enable_v2_manifest_paths,
            detached,
            max_retries,
            commit_message=commit_message,
            enable_stable_row_ids=enable_stable_row_ids,
            base_store_params=base_store_params,
            commit_timeout=commit_timeout,
        )
        return LanceDataset.of(run(coroutine, suspends=_suspends(base_uri)))

    @staticmethod
    def commit_batch(
        dest: str | os.PathLike[str] | LanceDataset,
        transactions: Iterable[Transaction],
        commit_lock: CommitLock | None = None,
        storage_options: Mapping[str, str] | None = None,
        enable_v2_manifest_paths: bool | None = None,
        detached: bool | None = False,
        max_retries: int = 20,
        base_store_params: Mapping[str, Mapping[str, str]] | None = None,
        commit_timeout: datetime.timedelta | None = _HALF_AN_HOUR,
    ) -> dict[str, Any]:
        """Commit several appends as one version.

        Args:
            dest: the dataset.
            transactions: with `LanceOperation.Append`.
            commit_lock, storage_options, enable_v2_manifest_paths, detached, max_retries, base_store_params,
                commit_timeout: as for `commit`.

        Returns:
            ``{"dataset": LanceDataset, "merged": Transaction}``.

        Raises:
            InvalidInputError: there is no transaction.
            UnsupportedError: one does something else than append.
        """
        coroutine = core.commit_batch(
            dest.aio if isinstance(dest, LanceDataset) else dest,
            transactions,
            commit_lock,
            storage_options,
            enable_v2_manifest_paths,
            detached,
            max_retries,
            base_store_params,
            commit_timeout,
        )
        result = run(coroutine, suspends=_suspends(dest))
        return {**result, "dataset": LanceDataset.of(result["dataset"])}

    @staticmethod
    def drop(
        base_uri: str | os.PathLike[str],
        storage_options: Mapping[str, str] | None = None,
        ignore_not_found: bool | None = None,
    ) -> None:
        """Remove a dataset with all its files and versions; files in base paths are left.

        Raises:
            NotFoundError: there is none, unless that is to be ignored (an `OSError`).
        """
        coroutine = core.drop(base_uri, storage_options, ignore_not_found)
        run(coroutine, suspends=_suspends(base_uri))

    def describe_data_file(self, path: str, base_id: int | None = None) -> DataFile:
        """A file that lies in the ``data`` folder already; see `DataFile.create`."""
        return self._run(self.aio.describe_data_file(path, base_id))

    def new_file_session(self) -> LanceFileSession:
        """A session on the folder of the data files."""
        return file_doors.LanceFileSession(self.aio.store.uri + "/data", self.aio.settings.storage_options)

    # -- counters --------------------------------------------------------------------------------------

    def io_stats_snapshot(self) -> Any:
        """Requests and bytes of this dataset's store so far."""
        return self.aio.io_stats_snapshot()

    def io_stats_incremental(self) -> Any:
        """Requests and bytes since the last call; resets the counters."""
        return self.aio.io_stats_incremental()
