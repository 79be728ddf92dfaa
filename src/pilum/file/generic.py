"""What every reader of a data file offers, whatever the format of the file: `GenericReader`.

Three readers satisfy it: `FileReader` (2.1 and later), `pilum.file.v2_0.FileReader20` and
`pilum.file.v0_1.FileReader01`.  `pilum.file.open.open_file` looks at the file and returns the right one, so a fragment
may hold files of several versions.  Streams (`pilum.file.stream`) need only ``initialise``, ``schedule`` and
``execute``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pilum.encoding import Decoded, Rows
from pilum.file.rows import Selection
from pilum.io import Bytes, Store
from pilum.schema import Schema

if TYPE_CHECKING:
    from pilum.file.stream import ReadTask

__all__ = ["GenericReader"]

Projection = Schema | Sequence[str] | None


class GenericReader(Protocol):
    """One opened data file; see `FileReader` for what the methods do.

    Attributes:
        path: the file's key in its store.
        store: where it lies.
    """

    path: str
    store: Store

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        ...

    @property
    def schema(self) -> Schema:
        """What is read when no projection is given."""
        ...

    @property
    def version(self) -> tuple[int, int]:
        """Format version as the footer has it."""
        ...

    @property
    def body(self) -> Bytes | None:
        """The bytes of the whole file, if they were fetched when it was opened."""
        ...

    def with_body(self, body: Bytes | None) -> GenericReader:
        """A reader of the same file that serves data from ``body``, or from the store if None."""
        ...

    async def initialise(self, projection: Projection = None, rows: Sequence[Rows] | None = None) -> Any:
        """Load the metadata that reading needs; returns the resolved projection."""
        ...

    def schedule(self, resolved: Any, rows: Rows) -> Any:
        """Plan the read of rows.  Pure."""
        ...

    def page_edges(self, resolved: Any) -> Sequence[int]:
        """Rows where pages begin: good places to cut a scan; may be empty."""
        ...

    async def execute(self, plan: Any) -> pa.RecordBatch:
        """Fetch the bytes of a planned read and decode them."""
        ...

    async def read_batch(
        self, rows: Rows | Sequence[int] | None = None, projection: Projection = None
    ) -> pa.RecordBatch:
        """Rows of the projected columns as one record batch."""
        ...

    async def read_decoded(self, start: int, stop: int) -> list[list[Decoded]]:
        """Rows as decoded values, one list for each leaf of the schema."""
        ...

    async def read_tasks(
        self, selection: Selection = None, batch_size: int = 8192, projection: Projection = None
    ) -> AsyncGenerator[ReadTask, None]:
        """A primed stream of tasks of at most ``batch_size`` rows each."""
        ...

    async def read_stream(
        self, selection: Selection = None, batch_size: int = 8192, batch_readahead: int | None = None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches of all columns."""
        ...

    async def read_stream_projected(
        self,
        selection: Selection = None,
        batch_size: int = 8192,
        batch_readahead: int | None = None,
        projection: Projection = None,
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of batches of some columns."""
        ...

    async def read_range(
        self, start: int, stop: int, batch_size: int = 8192, projection: Projection = None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of the rows ``[start, stop)``."""
        ...

    async def read_ranges(
        self, ranges: Sequence[range], batch_size: int = 8192, projection: Projection = None
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """A primed stream of the rows of sorted, disjoint ranges."""
        ...
