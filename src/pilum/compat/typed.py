"""The shapes of dictionaries that calls take and return, and other names that programs annotate with."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, TypedDict

import pyarrow as pa

from pilum.dataset.inputs import read_input

if TYPE_CHECKING:
    from pilum.dataset.synchronous import LanceDataset
    from pilum.dataset.transactions import Transaction

# The release whose API this is.
REFERENCE_VERSION = "14.0.2"

# Everything that holds rows: Arrow tables, batches and readers, frames, dictionaries, datasets, iterators.
ReaderLike = Any


def _coerce_reader(data_obj: Any, schema: pa.Schema | None = None) -> pa.RecordBatchReader:
    """Rows in any accepted form as an Arrow reader."""
    stream = read_input(data_obj, schema)
    return pa.RecordBatchReader.from_batches(stream.schema, stream.batches)


class Version(TypedDict):
    """A version: number, time of the commit (local, without time zone), totals as text."""

    version: int
    timestamp: datetime.datetime
    metadata: dict[str, str]


class VersionRef(TypedDict):
    """The number of a version."""

    version: int


class Tag(TypedDict):
    """A name for a version."""

    branch: str | None
    version: int
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    manifest_size: int
    metadata: dict[str, str]


class Branch(TypedDict):
    """Where a branch began."""

    parent_branch: str | None
    parent_version: int
    branch_identifier: list[tuple[int, str]]
    create_at: int
    manifest_size: int
    metadata: dict[str, Any]


class UpdateResult(TypedDict):
    """What an update did."""

    num_rows_updated: int


class DeleteResult(TypedDict):
    """What a delete did."""

    num_deleted_rows: int


class ExecuteResult(TypedDict):
    """What a merge insert did."""

    num_inserted_rows: int
    num_updated_rows: int
    num_deleted_rows: int


class AlterColumn(TypedDict, total=False):
    """A change to a column."""

    path: str
    name: str | None
    nullable: bool | None
    data_type: pa.DataType | None


class AutoCleanupConfig(TypedDict):
    """When old versions are cleaned up on their own."""

    interval: int
    older_than_seconds: int


class BulkCommitResult(TypedDict):
    """What a batch of commits came to."""

    dataset: LanceDataset
    merged: Transaction


class DatasetStats(TypedDict):
    """Counts of a version."""

    num_deleted_rows: int
    num_fragments: int
    num_small_files: int


class IndexInformation(TypedDict):
    """A segment of an index."""

    name: str
    type: str
    uuid: str
    fields: list[str]
    version: int
    fragment_ids: Any
    base_id: int | None
