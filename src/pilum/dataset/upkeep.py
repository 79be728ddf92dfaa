"""Looking after a dataset: cleanup, validation, lists of files, statistics, base paths."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum import arrays, table
from pilum.dataset import transactions, upkeep_values
from pilum.dataset.handle import Handle
from pilum.errors import NotFoundError, UnsupportedError
from pilum.file import details, open_file

if TYPE_CHECKING:
    from pilum.dataset.operations import DatasetBasePath
    from pilum.dataset.upkeep_values import CleanupExplanation, CleanupStats, DataStatistics
    from pilum.table import CleanupResult

__all__ = [
    "AsyncLanceStats",
    "Upkeep",
]

_ALL_FILES = pa.schema(
    [
        pa.field("base_uri", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("last_modified", pa.timestamp("us", "UTC"), nullable=False),
    ]
)
_TRACKED = pa.schema(
    [
        pa.field("version", pa.int64(), nullable=False),
        pa.field("base_uri", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("type", pa.dictionary(pa.int8(), pa.string()), nullable=False),
    ]
)


class Upkeep(Handle):
    """The calls of `AsyncLanceDataset` that look after the table."""

    async def cleanup_old_versions(
        self, older_than: datetime.timedelta | None = None, retain_versions: int | None = None, **options: Any
    ) -> CleanupStats:
        """Remove old versions and what only they need; see `pilum.LanceDataset.cleanup_old_versions`."""
        return _stats(await self._cleanup(older_than, retain_versions, **options))

    async def explain_cleanup_old_versions(
        self,
        older_than: datetime.timedelta | None = None,
        retain_versions: int | None = None,
        *,
        include_files: bool = False,
        max_files: int = 1000,
        **options: Any,
    ) -> CleanupExplanation:
        """What `cleanup_old_versions` would do; removes nothing."""
        result = await self._cleanup(older_than, retain_versions, dry_run=True, **options)
        kinds = {"data file": "data", "deletion file": "deletion", "transaction file": "transaction"}
        files = [
            upkeep_values.CleanupCandidateFile(
                one.path, kinds.get(one.kind, one.kind.split()[0]), one.size, not one.verified
            )
            for one in result.files
        ]
        own = self.manifest.branch
        branches = [
            upkeep_values.CleanupReferencedBranch(
                name, branch.parent_version, branch.parent_version in result.versions
            )
            for name, branch in (await table.list_branches(self.main)).items()
            if branch.parent_branch == own
        ]
        warnings = ["files are listed that no version names"] if any(one.unverified for one in files) else []
        return upkeep_values.CleanupExplanation(
            self.version,
            _stats(result),
            files[:max_files] if include_files else [],
            max_files,
            include_files and len(files) > max_files,
            branches,
            warnings,
        )

    async def _cleanup(
        self, older_than: datetime.timedelta | None, retain_versions: int | None, **options: Any
    ) -> CleanupResult:
        options.pop("delete_concurrency", None)  # files are removed one after the other
        return await table.cleanup(
            self.store,
            older_than=older_than,
            retain_versions=retain_versions,
            current=self.version,
            **options,
        )

    async def validate(self) -> None:
        """Check the manifest and that all files it names are there.

        Raises:
            CorruptFileError: something is wrong; the message says everything that was found.
        """
        await table.validate(self.store, self.manifest)

    async def all_files(self) -> pa.Table:
        """All files below the dataset: ``base_uri``, ``path``, ``size_bytes``, ``last_modified``."""
        found = await table.all_files(self.store)
        return pa.table(
            [
                _repeated(self.store.uri, len(found), pa.int32()),
                arrays.from_python([one.path for one in found], pa.string()),
                arrays.from_python([one.size for one in found], pa.int64()),
                arrays.from_python([int((one.modified or 0) * 1_000_000) for one in found], pa.int64()).view(
                    pa.timestamp("us", "UTC")
                ),
            ],
            schema=_ALL_FILES,
        )

    async def tracked_files(
        self, *, min_version: int | None = None, progress: Callable[[int, int], Any] | None = None
    ) -> pa.Table:
        """The files that versions name: ``version``, ``base_uri``, ``path``, ``type``."""
        found = await table.tracked_files(self.store, min_version=min_version or 0, progress=progress)
        return pa.table(
            [
                arrays.from_python([version for version, _ in found], pa.int64()),
                arrays.from_python([one.uri for _, one in found], pa.string()).cast(
                    _TRACKED.field("base_uri").type
                ),
                arrays.from_python([one.path for _, one in found], pa.string()),
                arrays.from_python([one.kind for _, one in found], pa.string()).cast(
                    _TRACKED.field("type").type
                ),
            ],
            schema=_TRACKED,
        )

    def base_paths(self) -> dict[int, DatasetBasePath]:
        """Other places where files of the dataset lie, by their ids."""
        return {one.id: transactions.base_path_of(one) for one in self.manifest.base_paths}

    async def add_bases(
        self, new_bases: Iterable[DatasetBasePath], transaction_properties: Mapping[str, str] | None = None
    ) -> None:
        """Commit further places where files of the dataset may lie."""
        await self._commit(
            table.UpdateBases(tuple([transactions.stored_base(one) for one in new_bases])),
            transaction_properties,
        )

    async def migrate_manifest_paths_v2(self) -> None:
        """Give all manifests names of the second scheme.  Not safe beside other writers."""
        await table.migrate_names_to_v2(self.store)

    @property
    def stats(self) -> AsyncLanceStats:
        """Statistics of this version."""
        return AsyncLanceStats(self)


def _repeated(text: str, count: int, index: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        arrays.from_python([0] * count, index), arrays.from_python([text], pa.string())
    )


def _stats(result: CleanupResult) -> CleanupStats:
    return upkeep_values.CleanupStats(
        result.bytes_removed,
        result.old_versions,
        result.data_files_removed,
        result.transaction_files_removed,
        result.index_files_removed,
        result.deletion_files_removed,
        result.failed_deletes,
    )


class AsyncLanceStats:
    """Statistics of a version."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def dataset_stats(self, max_rows_per_group: int = 1024) -> dict[str, int]:
        """``num_deleted_rows``, ``num_fragments`` and ``num_small_files`` (fragments of fewer rows than given)."""
        fragments = self._handle.manifest.fragments
        return {
            "num_deleted_rows": sum(one.num_deleted_rows for one in fragments),
            "num_fragments": len(fragments),
            "num_small_files": sum(one.physical_rows < max_rows_per_group for one in fragments),
        }

    async def data_stats(self) -> DataStatistics:
        """Bytes on disk of every field; reads the column metadata of all data files."""
        handle = self._handle
        totals = {one.id: 0 for one in handle.manifest.schema.walk()}
        for fragment in handle.manifest.fragments:
            for file in fragment.files:
                location = table.data_file_location(handle.store.uri, handle.manifest, file)
                store = table.open_location(handle.store, location.uri)
                reader = await open_file(store, location.key, size=file.size or None)
                columns = details.statistics_of(
                    await details.describe(reader, reader.schema.to_arrow())
                ).columns
                for field_id, column in zip(file.fields, file.column_indices, strict=False):
                    if field_id in totals and 0 <= column < len(columns):
                        totals[field_id] += columns[column].size_bytes
        return upkeep_values.DataStatistics(
            [upkeep_values.FieldStatistics(one, size) for one, size in totals.items()]
        )

    def index_stats(self, index_name: str) -> dict[str, Any]:
        """Statistics of an index.

        Raises:
            KeyError: there is no such index.
        """
        if index_name not in {one.name for one in self._handle.manifest.indices}:
            raise MissingIndexError(f"index {index_name!r} not found")
        raise UnsupportedError("statistics of indices are not supported yet")


class MissingIndexError(NotFoundError, KeyError):
    """There is no index of that name."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes
