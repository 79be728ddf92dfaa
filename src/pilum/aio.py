"""pilum for asyncio: the same calls, awaitable.

Example:
    >>> import asyncio, pyarrow as pa, pilum.aio
    >>> async def main() -> int:
    ...     ds = await pilum.aio.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-aio")
    ...     return await ds.count_rows("a > 1")
    >>> asyncio.run(main())
    2

What a read method returns is primed: its metadata I/O, and the errors of it, happened in the await.
"""

from __future__ import annotations

from pilum.dataset.core import AsyncLanceDataset as LanceDataset
from pilum.dataset.core import AsyncLanceScanner as LanceScanner
from pilum.dataset.core import commit, commit_batch, drop, write_dataset, write_fragments
from pilum.dataset.core import create_fragment_at as create_fragment
from pilum.dataset.core import open_dataset as dataset
from pilum.dataset.fragments import AsyncLanceFragment as LanceFragment
from pilum.dataset.references import AsyncBranches as Branches
from pilum.dataset.references import AsyncTags as Tags
from pilum.file.api import AsyncLanceFileReader as LanceFileReader
from pilum.file.api import AsyncLanceFileWriter as LanceFileWriter
from pilum.file.blob_writers import AsyncDedicatedBlobWriter as DedicatedBlobWriter
from pilum.file.blob_writers import AsyncPackedBlobWriter as PackedBlobWriter
from pilum.file.folder import AsyncLanceFileSession as LanceFileSession

__all__ = [
    "Branches",
    "DedicatedBlobWriter",
    "LanceDataset",
    "LanceFileReader",
    "LanceFileSession",
    "LanceFileWriter",
    "LanceFragment",
    "LanceScanner",
    "PackedBlobWriter",
    "Tags",
    "commit",
    "commit_batch",
    "create_fragment",
    "dataset",
    "drop",
    "write_dataset",
    "write_fragments",
]
