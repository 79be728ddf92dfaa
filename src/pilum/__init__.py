"""pilum: the Lance format, native to Python.

Open, write, scan, filter, take and search Lance datasets, synchronously here and asynchronously in
`pilum.aio`, from one implementation.

Example:
    >>> import pilum, pyarrow as pa
    >>> ds = pilum.write_dataset(pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]}), "memory://doc-top")
    >>> ds.to_table(columns=["name"], filter="id >= 2").to_pydict()
    {'name': ['b', 'c']}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports
from pilum.dataset.synchronous import LanceDataset, LanceScanner, dataset, write_dataset, write_fragments
from pilum.errors import (
    AlreadyExistsError,
    CommitConflictError,
    CorruptFileError,
    ExecutionError,
    InvalidInputError,
    NotFoundError,
    PilumError,
    RetryTimeoutError,
    StoreError,
    UnsupportedError,
)
from pilum.file import Session
from pilum.io import trace

if TYPE_CHECKING:
    from pilum.dataset.bitmap import Bitmap
    from pilum.dataset.door.builder import ScannerBuilder
    from pilum.dataset.door.fragments import FragmentSession, LanceFragment
    from pilum.dataset.door.history import DatasetDelta
    from pilum.dataset.fragment_metadata import DataFile, DeletionFile, FragmentMetadata, RowIdSequence
    from pilum.dataset.index_value import Index, IndexDescription, IndexFile
    from pilum.dataset.lance_schema import LanceField, LanceSchema
    from pilum.dataset.moments import sanitize_ts
    from pilum.dataset.operations import DatasetBasePath, LanceOperation
    from pilum.dataset.progress import (
        FileSystemFragmentWriteProgress,
        FragmentWriteProgress,
        IndexProgress,
        NoopFragmentWriteProgress,
    )
    from pilum.dataset.scanning import ColumnOrdering
    from pilum.dataset.schema_json import json_to_schema, schema_to_json
    from pilum.dataset.transactions import Transaction
    from pilum.dataset.udf import BatchUDF, BatchUDFCheckpoint, batch_udf
    from pilum.dataset.upkeep_values import (
        CleanupCandidateFile,
        CleanupExplanation,
        CleanupReferencedBranch,
        CleanupStats,
        DataStatistics,
        FieldStatistics,
    )
    from pilum.file.synchronous import LanceFileReader, LanceFileSession, LanceFileWriter
else:
    __getattr__, __dir__ = imports.late(
        __name__,
        {
            "dataset.bitmap": ("Bitmap",),
            "dataset.door.builder": ("ScannerBuilder",),
            "dataset.door.fragments": ("FragmentSession", "LanceFragment"),
            "dataset.door.history": ("DatasetDelta",),
            "dataset.fragment_metadata": ("DataFile", "DeletionFile", "FragmentMetadata", "RowIdSequence"),
            "dataset.index_value": ("Index", "IndexDescription", "IndexFile"),
            "dataset.lance_schema": ("LanceField", "LanceSchema"),
            "dataset.moments": ("sanitize_ts",),
            "dataset.operations": ("DatasetBasePath", "LanceOperation"),
            "dataset.progress": (
                "FileSystemFragmentWriteProgress",
                "FragmentWriteProgress",
                "IndexProgress",
                "NoopFragmentWriteProgress",
            ),
            "dataset.scanning": ("ColumnOrdering",),
            "dataset.schema_json": ("json_to_schema", "schema_to_json"),
            "dataset.transactions": ("Transaction",),
            "dataset.udf": ("BatchUDF", "BatchUDFCheckpoint", "batch_udf"),
            "dataset.upkeep_values": (
                "CleanupCandidateFile",
                "CleanupExplanation",
                "CleanupReferencedBranch",
                "CleanupStats",
                "DataStatistics",
                "FieldStatistics",
            ),
            "file.synchronous": ("LanceFileReader", "LanceFileSession", "LanceFileWriter"),
        },
    )

__version__ = "0.1.0"


def install_as_lance() -> None:
    """Let ``import lance`` and its submodules mean pilum, for programs that were written for pylance.

    Call it before anything imports ``lance``.

    Raises:
        RuntimeError: the real ``lance`` is imported already.

    Example:
        >>> import pilum
        >>> pilum.install_as_lance()  # doctest: +SKIP
        >>> import lance  # doctest: +SKIP
        >>> lance.dataset is pilum.dataset  # doctest: +SKIP
        True
    """
    from pilum.compat import install

    install()


__all__ = [
    "AlreadyExistsError",
    "BatchUDF",
    "BatchUDFCheckpoint",
    "Bitmap",
    "CleanupCandidateFile",
    "CleanupExplanation",
    "CleanupReferencedBranch",
    "CleanupStats",
    "ColumnOrdering",
    "CommitConflictError",
    "CorruptFileError",
    "DataFile",
    "DataStatistics",
    "DatasetBasePath",
    "DatasetDelta",
    "DeletionFile",
    "ExecutionError",
    "FieldStatistics",
    "FileSystemFragmentWriteProgress",
    "FragmentMetadata",
    "FragmentSession",
    "FragmentWriteProgress",
    "Index",
    "IndexDescription",
    "IndexFile",
    "IndexProgress",
    "InvalidInputError",
    "LanceDataset",
    "LanceField",
    "LanceFileReader",
    "LanceFileSession",
    "LanceFileWriter",
    "LanceFragment",
    "LanceOperation",
    "LanceScanner",
    "LanceSchema",
    "NoopFragmentWriteProgress",
    "NotFoundError",
    "PilumError",
    "RetryTimeoutError",
    "RowIdSequence",
    "ScannerBuilder",
    "Session",
    "StoreError",
    "Transaction",
    "UnsupportedError",
    "__version__",
    "batch_udf",
    "dataset",
    "install_as_lance",
    "json_to_schema",
    "sanitize_ts",
    "schema_to_json",
    "trace",
    "write_dataset",
    "write_fragments",
]
