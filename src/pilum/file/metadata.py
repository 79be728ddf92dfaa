"""What is known of a data file once its tail has been read: where columns and pages are.

`FileMetadata` is the footer, the row count and the position of every column's metadata; a `Column` is the pages
of one column as decoders, with the row each begins at.  Both are plain values without a store, so a session
keeps them under the file's address, and the column's under (file, column): a second reader of the same file asks
for data only.

```
open:      tail of the file ─► footer, tables, row count          (one read; two when the tail is long)
column i:  ColumnMetadata from those bytes, or one more read when the file is wide and few columns are wanted
```
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.encoding import PageDecoder, Range, Rows, open_page
from pilum.errors import CorruptFileError, PilumError, located
from pilum.file.container import ALIGNMENT, Footer, parse_column, parse_footer, parse_table
from pilum.io import Store
from pilum.schema import Schema, parse_file_descriptor

__all__ = ["Column", "FileMetadata", "load_metadata", "relocated"]

# Column metadata beyond this many bytes is fetched by column when less than a quarter of the columns is wanted.
_WIDE_BYTES = 64 << 10
_WIDE_RATIO = 4


def relocated(error: PilumError, path: str, column: Any = None, page: int | None = None) -> PilumError:
    """The same error with the place where it happened in its message."""
    if getattr(error, "_located", False):
        return error
    moved = type(error)(located(str(error), path=path, column=column, page=page))
    moved.__cause__ = error.__cause__
    moved._located = True  # type: ignore[attr-defined]
    return moved


class Column:
    """One column of one file: its page decoders in row order.

    Attributes:
        pages: the decoders.
        starts: first row of each page, then the number of rows; for structural fixed-size lists rows are items.
        ready: every page is initialised.
    """

    __slots__ = ("index", "pages", "ready", "starts")

    def __init__(self, index: int, pages: list[PageDecoder]) -> None:
        self.index = index
        self.pages = pages
        starts = [0]
        for page in pages:
            starts.append(starts[-1] + page.num_rows)
        self.starts = starts
        self.ready = all(page.initialised for page in pages)

    @property
    def num_rows(self) -> int:
        """Rows (items) of all pages."""
        return self.starts[-1]

    @property
    def nbytes(self) -> int:
        """Memory held, for the cache."""
        return 100 + sum(page.nbytes + 40 for page in self.pages)

    def overlapping(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """(page number, rows within that page) for the pages that hold some of ``rows``."""
        starts = self.starts
        if isinstance(rows, range):
            first = bisect.bisect_right(starts, rows.start) - 1
            for number in range(first, len(self.pages)):
                low = starts[number]
                if low >= rows.stop:
                    break
                begin, end = max(rows.start - low, 0), min(rows.stop, starts[number + 1]) - low
                if begin < end:
                    yield number, range(begin, end)
            return
        if len(self.pages) == 1:
            yield 0, rows
            return
        edges = np.searchsorted(rows, starts).tolist()
        for number in range(len(self.pages)):
            if edges[number] < edges[number + 1]:
                yield number, rows[edges[number] : edges[number + 1]] - starts[number]

    def uninitialised(self, rows: Rows) -> list[int]:
        """Numbers of the pages that must be initialised before these rows can be scheduled."""
        if self.ready:
            return []
        return [number for number, _ in self.overlapping(rows) if not self.pages[number].initialised]


class FileMetadata:
    """The opened container of one file; see the module docstring.

    Attributes:
        path: the file's key, for messages.
        footer: the decoded footer.
        schema: the schema stored in the file.
        num_rows: rows in the file.
        buffers: ranges of the global buffers; 0 is the file descriptor.
    """

    __slots__ = (
        "_columns",
        "_ranges",
        "_sections",
        "_sections_start",
        "buffers",
        "footer",
        "num_rows",
        "path",
        "projections",
        "schema",
    )

    def __init__(
        self, path: str, footer: Footer, schema: Schema, num_rows: int, buffers: list[Range],
        ranges: list[Range], sections: bytes | None, sections_start: int,
    ) -> None:  # fmt: skip
        self.path = path
        self.footer = footer
        self.schema = schema
        self.num_rows = num_rows
        self.buffers = buffers
        self._ranges = ranges
        self._sections = sections
        self._sections_start = sections_start
        # Resolved projections by identity of their schema; a small memo, see FileReader.
        self.projections: dict[int, Any] = {}

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return len(self._ranges)

    @property
    def nbytes(self) -> int:
        """Memory held, for the cache."""
        return 600 + 16 * len(self._ranges) + len(self._sections or b"")

    def column_range(self, column: int) -> Range:
        """Byte range of a column's metadata."""
        return self._ranges[column]

    def column_bytes(self, column: int) -> bytes | None:
        """The bytes of a column's metadata if they came with the tail."""
        if self._sections is None:
            return None
        low, high = self._ranges[column]
        return self._sections[low - self._sections_start : high - self._sections_start]

    def parse_column(self, column: int, data: bytes, scale: int = 1) -> Column:
        """Decode a column's metadata and check it against the row count.

        Args:
            column: number of the column in the file.
            data: its serialized metadata.
            scale: items per row, above 1 inside structural fixed-size lists.
        """
        version = self.footer.version
        pages = []
        for number, source in enumerate(parse_column(data, self.footer, self.path, column)):
            try:
                pages.append(open_page(source, version))
            except PilumError as error:
                raise relocated(error, self.path, column, number) from None
        found = Column(column, pages)
        if found.num_rows != self.num_rows * scale:
            raise CorruptFileError(
                located(
                    f"the column's pages hold {found.num_rows} rows, the file says {self.num_rows * scale}",
                    path=self.path,
                    column=column,
                )
            )
        return found


async def load_metadata(
    store: Store, path: str, size: int | None, wanted: int | None, body: npt.NDArray[np.uint8] | None = None
) -> FileMetadata:
    """Read and parse the tail of a file.

    Args:
        store: where the file lies.
        path: its key.
        size: its length if known (spares a request on object stores).
        wanted: how many columns will be read, None for all; decides whether a wide file is read whole.
        body: the bytes of the whole file when they are already here.

    Raises:
        CorruptFileError, UnsupportedError: see `container`.
        NotFoundError, StoreError: the store has no such file or failed.
    """
    if body is not None:
        tail, size = body, len(body)
    else:
        tail, size = await store.get_tail(path, max(store.block_size, 4096), size=size, who="footer")
    tail_start = size - len(tail)
    footer = parse_footer(tail[-40:].tobytes(), size, path)

    async def section(low: int, high: int, who: str) -> bytes:
        if low >= tail_start:
            return tail[low - tail_start : high - tail_start].tobytes()
        if low == high:
            return b""
        return (await store.get(path, low, high, who=who)).tobytes()

    table_end = footer.buffer_table + 16 * footer.num_buffers
    start = footer.buffer_table
    if footer.buffer_table < tail_start:
        # A tail shorter than its tables: fetch from the column table on, they are adjacent.
        front = await store.get(path, footer.column_table, tail_start, who="footer")
        tail = np.concatenate([front, tail])
        tail_start = footer.column_table
    buffers = parse_table(
        await section(start, table_end, "footer"), 0, footer.columns_start, path, "a global buffer", ALIGNMENT
    )
    first = buffers[0][0]
    if first < tail_start:
        columns_size = footer.column_table - footer.columns_start
        wide = wanted is not None and _WIDE_RATIO * wanted < footer.num_columns and columns_size > _WIDE_BYTES
        if not wide:
            front = await store.get(path, first, tail_start, who="metadata")
            tail = np.concatenate([front, tail])
            tail_start = first
    descriptor = await section(*buffers[0], "metadata")
    try:
        schema, num_rows = parse_file_descriptor(descriptor)
    except PilumError as error:
        raise relocated(error, path) from None
    table = await section(footer.column_table, footer.column_table + 16 * footer.num_columns, "metadata")
    ranges = parse_table(table, footer.columns_start, footer.column_table, path, "column metadata")
    sections = None
    if footer.columns_start >= tail_start:
        sections = await section(footer.columns_start, footer.column_table, "metadata")
    return FileMetadata(path, footer, schema, num_rows, buffers, ranges, sections, footer.columns_start)
