"""What is known of a data file once its tail has been read: where columns and pages are.

A `Container` is the footer, the row count and the position of every column's metadata; a `Column` is the pages of
one column as decoders, with the row each begins at; `FileMetadata` is a container with the path it was read from.
They are plain values without a store, so a session keeps them under the file's address, and columns under (file,
column): a second reader of the same file asks for data only.

The small fragments of a table often end in equal bytes.  Those are parsed once (`_container`), and a column whose
pages need no metadata of their own is shared with its container: opening such a file costs a few look-ups.  Where the
whole file is here, and its pages have metadata of their own, it shares the column of a file with the same bytes there.

```
open:      tail of the file ─► footer, tables, row count          (one read; two when the tail is long)
column i:  ColumnMetadata from those bytes, or one more read when the file is wide and few columns are wanted
```
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from functools import lru_cache
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pilum.encoding import PageDecoder, Range, Rows, column_rows, open_page
from pilum.errors import CorruptFileError, PilumError, UnsupportedError, located
from pilum.file.container import FOOTER_SIZE, Footer, parse_column, parse_footer, parse_table
from pilum.io import Store
from pilum.schema import Schema, parse_file_descriptor

if TYPE_CHECKING:
    from pilum.encoding import ColumnRows

__all__ = [
    "Column",
    "Container",
    "FileMetadata",
    "keep_bytes",
    "load_metadata",
    "metadata_of_body",
    "relocated",
]

# Column metadata beyond this many bytes is fetched by column when less than a quarter of the columns is wanted.
_WIDE_BYTES = 64 << 10
_WIDE_RATIO = 4
_NUMBER = struct.Struct("<Q")
# Closing sections up to this length are parsed once for all files that end in the same bytes.
_SHARED_BYTES = 16 << 10
# Columns whose pages have more metadata than this are not compared with those of other files.
_ALIKE_BYTES = 4 << 10
_MAX_ALIKE = 64


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
        whole: the column that a session keeps; another one where this is read as descriptors only.
        extents: the bytes from the first to the last buffer of each page.
    """

    __slots__ = ("_together", "extents", "index", "pages", "ready", "starts", "whole")

    def __init__(
        self, index: int, pages: list[PageDecoder], extents: list[Range], whole: Column | None = None
    ) -> None:
        self.index = index
        self.extents = extents
        self.whole = whole or self
        self.pages = pages
        starts = [0]
        for page in pages:
            starts.append(starts[-1] + page.num_rows)
        self.starts = starts
        self.ready = all(page.initialised for page in pages)
        self._together: ColumnRows | bool | None = len(pages) > 1  # True: not asked for yet

    def descriptors(self) -> Column:
        """A blob column read as descriptors; its pages are the same, and initialised together with these."""
        return Column(self.index, [page.descriptors() for page in self.pages], self.extents, self)

    @property
    def num_rows(self) -> int:
        """Rows (items) of all pages."""
        return self.starts[-1]

    @property
    def nbytes(self) -> int:
        """Memory held, for the cache; that of `together` is reckoned with from the start."""
        held = 100 + sum(page.nbytes + 40 for page in self.pages)
        return held if len(self.pages) < 2 else 2 * held

    @property
    def together(self) -> ColumnRows | None:
        """What reads scattered rows of all pages in one pass, if that can be."""
        if self._together is True and self.ready:
            self._together = column_rows.together(self.pages)
        return None if isinstance(self._together, bool) else self._together

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


class Container:
    """The parsed end of a file.

    Attributes:
        footer: the decoded footer.
        schema: the schema stored in the file.
        num_rows: rows in the file.
        buffers: ranges of the global buffers; 0 is the file descriptor.
        ranges: byte range of each column's metadata.
        sections: those bytes, if they came with the tail.
        projections: resolved projections whose columns need no metadata of the file's own (see `FileReader`).
        plans: scheduled reads of such projections, and of those in ``alike``.
        alike: the last projection whose columns were those of another file (`alike_column`), by identity of its schema.
    """

    __slots__ = (
        "_alike", "_shared", "alike", "buffers", "footer", "num_rows", "plans", "projections", "ranges", "schema", "sections",
    )  # fmt: skip

    def __init__(
        self,
        footer: Footer,
        schema: Schema,
        num_rows: int,
        buffers: list[Range],
        ranges: list[Range],
        sections: bytes | None,
    ) -> None:
        self.footer = footer
        self.schema = schema
        self.num_rows = num_rows
        self.buffers = buffers
        self.ranges = ranges
        self.sections = sections
        self.projections: dict[int, Any] = {}
        self.plans: dict[tuple[int, int, int], Any] = {}
        self.alike: dict[int, Any] = {}
        self._shared: dict[tuple[int, int], Column] = {}
        self._alike: dict[tuple[int, int], tuple[list[Range], dict[bytes, Column]]] = {}

    def column_bytes(self, column: int) -> bytes | None:
        """The bytes of a column's metadata if they came with the tail."""
        if self.sections is None:
            return None
        low, high = self.ranges[column]
        start = self.footer.columns_start
        return self.sections[low - start : high - start]

    def shared_column(self, column: int, scale: int) -> Column | None:
        """The column, if it was parsed before and belongs to no single file."""
        return self._shared.get((column, scale))

    def alike_column(self, column: int, scale: int, body: npt.NDArray[np.uint8]) -> Column | None:
        """The column of another file that has the same metadata of its pages.

        Args:
            column: number of the column in the file.
            scale: items per row.
            body: all bytes of the file.
        """
        found = self._alike.get((column, scale))
        return None if found is None else found[1].get(_bytes_at(body, found[0]))

    def keep_alike(self, column: Column, scale: int, body: npt.NDArray[np.uint8]) -> None:
        """Let files that are alike have a column whose pages are initialised; arguments as `alike_column`."""
        ranges = [one for page in column.pages for one in page.metadata_ranges()]
        if sum([high - low for low, high in ranges]) <= _ALIKE_BYTES:
            _, known = self._alike.setdefault((column.index, scale), (ranges, {}))
            if len(known) >= _MAX_ALIKE:
                known.clear()
            known[_bytes_at(body, ranges)] = column

    def parse_column(self, column: int, data: bytes, scale: int = 1) -> Column:
        """Decode a column's metadata and check it against the row count.

        Args:
            column: number of the column in the file.
            data: its serialized metadata.
            scale: items per row, above 1 inside structural fixed-size lists.
        """
        if self.footer.version < (2, 1):
            raise UnsupportedError("columns of format 2.0 are not supported here; open_file reads them")
        pages = []
        extents = []
        for number, source in enumerate(parse_column(data, self.footer.size)):
            offsets, sizes = source.offsets, source.sizes
            if len(offsets) == 1:
                extents.append((offsets[0], offsets[0] + sizes[0]))
            else:
                extents.append((min(offsets, default=0), max(map(add, offsets, sizes), default=0)))
            try:
                pages.append(open_page(source, self.footer.version))
            except PilumError as error:
                raise type(error)(located(str(error), page=number)) from error
        found = Column(column, pages, extents)
        if found.num_rows != self.num_rows * scale:
            raise CorruptFileError(
                f"the column's pages hold {found.num_rows} rows, the file says {self.num_rows * scale}"
            )
        if found.ready:
            self._shared[column, scale] = found
        return found


def _bytes_at(body: npt.NDArray[np.uint8], ranges: list[Range]) -> bytes:
    if len(ranges) == 1:
        low, high = ranges[0]
        return body[low:high].tobytes()
    return b"".join([body[low:high].tobytes() for low, high in ranges])


class FileMetadata:
    """The container of one file; see `Container` for what it holds."""

    __slots__ = ("container", "path", "projections")

    def __init__(self, path: str, container: Container) -> None:
        self.path = path
        self.container = container
        # Resolved projections by identity of their schema; a small memo, see FileReader.
        self.projections: dict[int, Any] = {}

    @property
    def footer(self) -> Footer:
        """The decoded footer."""
        return self.container.footer

    @property
    def schema(self) -> Schema:
        """The schema stored in the file."""
        return self.container.schema

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        return self.container.num_rows

    @property
    def buffers(self) -> list[Range]:
        """Ranges of the global buffers."""
        return self.container.buffers

    @property
    def num_columns(self) -> int:
        """Number of columns."""
        return len(self.container.ranges)

    @property
    def nbytes(self) -> int:
        """Memory held, for the cache; containers that files share are counted with each."""
        container = self.container
        return 600 + 16 * len(container.ranges) + len(container.sections or b"")


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
    try:
        first = _closing_start(tail, size)
        if first is not None:
            return FileMetadata(path, _container(tail[first - size :].tobytes(), size))
        return FileMetadata(path, await _load_long(store, path, tail, size, wanted))
    except PilumError as error:
        raise relocated(error, path) from error.__cause__


def keep_bytes(cache: Any, store: Store, path: str, body: npt.NDArray[np.uint8] | None) -> None:
    """Keep a whole small file in the session where asking for it again would take time."""
    if body is not None and store.suspends and cache.files is not None:
        cache.files.put((store.uri, path), [(0, len(body), body)], len(body))


def metadata_of_body(path: str, body: npt.NDArray[np.uint8]) -> FileMetadata | None:
    """The metadata of a file that is here whole, if its closing sections are short; as `load_metadata`."""
    size = len(body)
    first = _closing_start(body, size)
    if first is None:
        return None
    try:
        return FileMetadata(path, _container(body[first:].tobytes(), size))
    except PilumError as error:
        raise relocated(error, path) from error.__cause__


def _closing_start(tail: npt.NDArray[np.uint8], size: int) -> int | None:
    """Where the closing sections begin, if the tail holds all of them and they are short; unchecked."""
    length = len(tail)
    if length < FOOTER_SIZE:
        return None
    (buffer_table,) = _NUMBER.unpack_from(tail.data, length - FOOTER_SIZE + 16)
    at = buffer_table - (size - length)
    if not 0 <= at <= length - FOOTER_SIZE:
        return None
    (first,) = _NUMBER.unpack_from(tail.data, at)
    return first if size - min(length, _SHARED_BYTES) <= first < size else None


@lru_cache(maxsize=1024)
def _container(closing: bytes, size: int) -> Container:
    """The container of a file of ``size`` bytes that ends in ``closing``: global buffer 0 up to the footer."""
    footer = parse_footer(closing[-FOOTER_SIZE:], size)
    start = size - len(closing)

    def section(low: int, high: int) -> bytes:
        if low < start:
            raise CorruptFileError(
                located("the sections at the end of the file are not in order", offset=low)
            )
        return closing[low - start : high - start]

    table = section(footer.buffer_table, footer.buffer_table + 16 * footer.num_buffers)
    buffers = parse_table(table, 0, footer.columns_start, "a global buffer", footer.alignment)
    return _assembled(
        footer,
        section(*buffers[0]),
        buffers,
        section(footer.column_table, footer.column_table + 16 * footer.num_columns),
        section(footer.columns_start, footer.column_table),
    )


def _assembled(
    footer: Footer, descriptor: bytes, buffers: list[Range], table: bytes, sections: bytes | None
) -> Container:
    schema, num_rows = parse_file_descriptor(descriptor)
    ranges = parse_table(table, footer.columns_start, footer.column_table, "column metadata")
    return Container(footer, schema, num_rows, buffers, ranges, sections)


async def _load_long(
    store: Store, path: str, tail: npt.NDArray[np.uint8], size: int, wanted: int | None
) -> Container:
    """The container of a file whose closing sections are longer than the tail, or too long to be shared."""
    footer = parse_footer(tail[-FOOTER_SIZE:].tobytes(), size)
    tail_start = size - len(tail)

    async def section(low: int, high: int) -> bytes:
        if low >= tail_start:
            return tail[low - tail_start : high - tail_start].tobytes()
        return (await store.get(path, low, high, who="metadata")).tobytes() if low < high else b""

    async def reach(low: int) -> None:
        nonlocal tail, tail_start
        if low < tail_start:
            front = await store.get(path, low, tail_start, who="metadata")
            tail, tail_start = np.concatenate([front, tail]), low

    if footer.buffer_table < tail_start:
        await reach(footer.column_table)  # the two tables are adjacent
    table = await section(footer.buffer_table, footer.buffer_table + 16 * footer.num_buffers)
    buffers = parse_table(table, 0, footer.columns_start, "a global buffer", footer.alignment)
    wide = (
        wanted is not None
        and _WIDE_RATIO * wanted < footer.num_columns
        and footer.column_table - footer.columns_start > _WIDE_BYTES
    )
    if not wide:
        await reach(min(buffers[0][0], footer.columns_start))
    return _assembled(
        footer,
        await section(*buffers[0]),
        buffers,
        await section(footer.column_table, footer.column_table + 16 * footer.num_columns),
        await section(footer.columns_start, footer.column_table)
        if footer.columns_start >= tail_start
        else None,
    )
