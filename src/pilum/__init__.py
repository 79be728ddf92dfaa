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

from pilum.dataset.synchronous import LanceDataset, LanceFragment, LanceScanner, dataset, write_dataset
from pilum.errors import (
    AlreadyExistsError,
    CommitConflictError,
    CorruptFileError,
    ExecutionError,
    InvalidInputError,
    NotFoundError,
    PilumError,
    StoreError,
    UnsupportedError,
)
from pilum.file import Session
from pilum.file.synchronous import LanceFileReader, LanceFileSession, LanceFileWriter
from pilum.io import trace

__version__ = "0.1.0"

__all__ = [
    "AlreadyExistsError",
    "CommitConflictError",
    "CorruptFileError",
    "ExecutionError",
    "InvalidInputError",
    "LanceDataset",
    "LanceFileReader",
    "LanceFileSession",
    "LanceFileWriter",
    "LanceFragment",
    "LanceScanner",
    "NotFoundError",
    "PilumError",
    "Session",
    "StoreError",
    "UnsupportedError",
    "__version__",
    "dataset",
    "trace",
    "write_dataset",
]
