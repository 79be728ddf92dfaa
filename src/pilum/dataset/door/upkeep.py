"""Config, metadata and maintenance, synchronously."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum.dataset.door.base import Door
from pilum.dataset.unbuilt import NotBuilt

if TYPE_CHECKING:
    from pilum.dataset.operations import DatasetBasePath
    from pilum.dataset.upkeep_values import CleanupExplanation, CleanupStats, DataStatistics

__all__ = ["DatasetOptimizer", "LanceStats", "UpkeepDoor"]


class UpkeepDoor(Door):
    """The calls of `LanceDataset` on config and metadata, and those that look after the table."""

    # -- config and metadata ---------------------------------------------------------------------------

    def config(self) -> dict[str, str]:
        """The config of the table."""
        return self.aio.config()

    @property
    def metadata(self) -> dict[str, str]:
        """Free metadata of the dataset."""
        return self.aio.metadata

    @property
    def schema_metadata(self) -> dict[str, str]:
        """Metadata of the Arrow schema."""
        return self.aio.schema_metadata

    def update_config(self, values: Mapping[str, str | None], *, replace: bool = False) -> dict[str, str]:
        """Set entries of the config and return it; None deletes an entry, ``replace`` empties it first."""
        return self._run(self.aio.update_config(values, replace=replace))

    def delete_config_keys(self, keys: Iterable[str]) -> None:
        """Delete entries of the config."""
        self._run(self.aio.delete_config_keys(keys))

    def update_metadata(self, values: Mapping[str, str | None], *, replace: bool = False) -> dict[str, str]:
        """Set entries of the dataset's metadata and return it; None deletes an entry."""
        return self._run(self.aio.update_metadata(values, replace=replace))

    def update_schema_metadata(
        self, values: Mapping[str, str | None], *, replace: bool = False
    ) -> dict[str, str]:
        """Set entries of the schema's metadata and return it; None deletes an entry."""
        return self._run(self.aio.update_schema_metadata(values, replace=replace))

    def replace_schema_metadata(self, new_metadata: Mapping[str, str]) -> None:
        """Deprecated: ``update_schema_metadata(new_metadata, replace=True)``."""
        warnings.warn(
            "replace_schema_metadata is deprecated, use update_schema_metadata(metadata, replace=True)",
            DeprecationWarning,
            stacklevel=2,
        )
        self.update_schema_metadata(new_metadata, replace=True)

    def update_field_metadata(
        self, field_updates: Mapping[str, Mapping[str, str | None]], *, replace: bool = False
    ) -> None:
        """Set entries of the metadata of fields: ``{"path": {"key": "value"}}``; None deletes an entry.

        Raises:
            InvalidInputError: there is no such field.
        """
        self._run(self.aio.update_field_metadata(field_updates, replace=replace))

    def replace_field_metadata(self, field_name: str, new_metadata: Mapping[str, str]) -> None:
        """Deprecated: ``update_field_metadata({field_name: new_metadata}, replace=True)``."""
        warnings.warn(
            "replace_field_metadata is deprecated, use update_field_metadata with replace=True",
            DeprecationWarning,
            stacklevel=2,
        )
        self.update_field_metadata({field_name: new_metadata}, replace=True)

    # -- maintenance -----------------------------------------------------------------------------------

    def cleanup_old_versions(
        self,
        older_than: datetime.timedelta | None = None,
        retain_versions: int | None = None,
        *,
        delete_unverified: bool = False,
        error_if_tagged_old_versions: bool = True,
        delete_rate_limit: int | None = None,
        versions: Collection[int] | None = None,
        delete_concurrency: int | None = None,
    ) -> CleanupStats:
        """Remove old versions and the files that only they need.

        The version of this handle and newer ones stay, and so does what tags and branches need.

        Args:
            older_than: remove versions older than this; two weeks when nothing else says which.
            retain_versions: keep the newest n.
            delete_unverified: also remove young files that no version names.  Only safe when nobody writes.
            error_if_tagged_old_versions: refuse when a tagged version would go, instead of keeping it.
            delete_rate_limit: most files removed in a second.
            versions: remove only versions among these.
            delete_concurrency: accepted.

        Raises:
            InvalidInputError: a tagged version would go (an `OSError`).
        """
        return self._run(
            self.aio.cleanup_old_versions(
                older_than,
                retain_versions,
                delete_unverified=delete_unverified,
                error_if_tagged_old_versions=error_if_tagged_old_versions,
                delete_rate_limit=delete_rate_limit,
                versions=versions,
                delete_concurrency=delete_concurrency,
            )
        )

    def explain_cleanup_old_versions(
        self,
        older_than: datetime.timedelta | None = None,
        retain_versions: int | None = None,
        *,
        delete_unverified: bool = False,
        error_if_tagged_old_versions: bool = True,
        delete_rate_limit: int | None = None,
        versions: Collection[int] | None = None,
        include_files: bool = False,
        max_files: int = 1000,
    ) -> CleanupExplanation:
        """What `cleanup_old_versions` would do; removes nothing.

        Args:
            include_files, max_files: whether to list the files, and how many at most; the others as there.
        """
        return self._run(
            self.aio.explain_cleanup_old_versions(
                older_than,
                retain_versions,
                delete_unverified=delete_unverified,
                error_if_tagged_old_versions=error_if_tagged_old_versions,
                delete_rate_limit=delete_rate_limit,
                versions=versions,
                include_files=include_files,
                max_files=max_files,
            )
        )

    def validate(self) -> None:
        """Check the manifest and that all files it names are there.

        Raises:
            CorruptFileError: something is wrong; the message says everything that was found.
        """
        self._run(self.aio.validate())

    def all_files(self) -> pa.RecordBatchReader:
        """All files below the dataset: ``base_uri``, ``path``, ``size_bytes``, ``last_modified``."""
        return self._run(self.aio.all_files()).to_reader()

    def tracked_files(
        self, *, min_version: int | None = None, progress: Callable[[int, int], Any] | None = None
    ) -> pa.RecordBatchReader:
        """The files that versions name: ``version``, ``base_uri``, ``path``, ``type``.

        Args:
            min_version: leave out older versions.
            progress: called with the number of versions done and of all.
        """
        return self._run(self.aio.tracked_files(min_version=min_version, progress=progress)).to_reader()

    def base_paths(self) -> dict[int, DatasetBasePath]:
        """Other places where files of the dataset lie, by their ids."""
        return self.aio.base_paths()

    def add_bases(
        self, new_bases: Iterable[DatasetBasePath], transaction_properties: Mapping[str, str] | None = None
    ) -> UpkeepDoor:
        """Commit further places where files of the dataset may lie; returns the dataset."""
        self._run(self.aio.add_bases(new_bases, transaction_properties))
        return self

    def migrate_manifest_paths_v2(self) -> None:
        """Give all manifests names of the second scheme.  Not safe beside other writers."""
        self._run(self.aio.migrate_manifest_paths_v2())

    @property
    def stats(self) -> LanceStats:
        """Statistics of this version."""
        return LanceStats(self)

    @property
    def optimize(self) -> DatasetOptimizer:
        """Compaction and automatic cleanup."""
        return DatasetOptimizer(self)


class LanceStats:
    """Statistics of a version."""

    def __init__(self, dataset: Door) -> None:
        self._dataset = dataset

    def dataset_stats(self, max_rows_per_group: int = 1024) -> dict[str, int]:
        """``num_deleted_rows``, ``num_fragments`` and ``num_small_files`` (fragments of fewer rows than given)."""
        return self._dataset.aio.stats.dataset_stats(max_rows_per_group)

    def data_stats(self) -> DataStatistics:
        """Bytes on disk of every field; reads the column metadata of all data files."""
        return self._dataset._run(self._dataset.aio.stats.data_stats())

    def index_stats(self, index_name: str) -> dict[str, Any]:
        """Statistics of an index.

        Raises:
            KeyError: there is no such index.
        """
        return self._dataset.aio.stats.index_stats(index_name)


class DatasetOptimizer:
    """What makes a dataset smaller or faster."""

    compact_files = NotBuilt("compaction")
    optimize_indices = NotBuilt("maintaining indices")

    def __init__(self, dataset: Door) -> None:
        self._dataset = dataset

    def enable_auto_cleanup(self, auto_cleanup_config: Mapping[str, Any], **options: Any) -> None:
        """Let every ``interval``-th commit remove versions older than ``older_than_seconds``."""
        self._dataset._run(self._dataset.aio.enable_auto_cleanup({**auto_cleanup_config, **options}))

    def disable_auto_cleanup(self, **options: Any) -> None:
        """Remove the config of the automatic cleanup."""
        del options
        self._dataset._run(self._dataset.aio.disable_auto_cleanup())
