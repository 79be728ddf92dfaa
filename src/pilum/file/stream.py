"""Streams over one file: batches in row order, bounded memory, primed when handed out.

The coroutines here await the metadata of every page they will read, then return (docs/architecture.md, "The one
idea").  What follows is computation and data I/O only:

* at most `LANCE_INLINE_SCHEDULING_THRESHOLD` rows (16384): all reads are scheduled before the stream is handed out;
* more: each read is scheduled by the task that performs it, ahead of the consumer, so that scheduling, I/O and
  decoding of the next rows overlap with the consumption of these.

`read_tasks` hands out one awaitable per batch and leaves it to the caller how many run at once.  `read_stream` reads
ahead itself, in windows of several batches: one window is one set of merged requests and one decode, cut into
batches without copying.  Windows of a scan end where pages do, so that no page is decoded in two parts or joined with
another; a batch that lies in two windows is copied.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum import config
from pilum.encoding import Rows
from pilum.errors import InvalidInputError
from pilum.file.rows import Selection, count, cut, cut_at_pages, select
from pilum.io import current_runtime
from pilum.schema import Schema

if TYPE_CHECKING:
    from pilum.file.generic import GenericReader

__all__ = ["ReadTask", "read_stream", "read_tasks"]

_WINDOW_BYTES = 8 << 20
_WINDOWS_AHEAD = 3


class ReadTask:
    """A batch to come: ``num_rows`` now, the batch when awaited.

    Attributes:
        num_rows: rows of the batch.
    """

    __slots__ = ("_plan", "_projection", "_reader", "_rows", "num_rows")

    def __init__(self, reader: GenericReader, projection: Any, rows: Rows, plan: Any) -> None:
        self._reader = reader
        self._projection = projection
        self._rows = rows
        self._plan = plan
        self.num_rows = len(rows)

    async def read(self) -> pa.RecordBatch:
        """Fetch and decode the batch."""
        plan = self._plan
        if plan is None:
            plan = self._reader.schedule(self._projection, self._rows)
        return await self._reader.execute(plan)

    def __await__(self) -> Generator[Any, Any, pa.RecordBatch]:
        return self.read().__await__()


async def read_tasks(
    reader: GenericReader, selection: Selection, batch_size: int, projection: Schema | Sequence[str] | None
) -> AsyncGenerator[ReadTask, None]:
    """A primed stream of tasks of at most ``batch_size`` rows each, in row order.

    Args:
        reader: an open file.
        selection: None (all rows), a range, a list of sorted disjoint ranges, or strictly increasing indices.
        batch_size: rows per batch.
        projection: a part of the schema or column names; all columns by default.

    Raises:
        InvalidInputError: rows out of range or in no order, unknown column.
        CorruptFileError: the metadata contradicts the format.
    """
    tasks = await _prepare(reader, selection, batch_size, batch_size, projection)

    async def stream() -> AsyncGenerator[ReadTask, None]:
        for task in tasks:
            yield task

    return stream()


async def read_stream(
    reader: GenericReader,
    selection: Selection,
    batch_size: int,
    batch_readahead: int | None,
    projection: Schema | Sequence[str] | None,
) -> AsyncGenerator[pa.RecordBatch, None]:
    """A primed stream of batches; arguments as `read_tasks`.

    Args:
        batch_readahead: batches that may be decoded ahead of the consumer; by default some tens of MiB.
    """
    schema = reader.schema if projection is None else projection
    if not isinstance(schema, Schema):
        schema = reader.schema.project(list(schema))
    if batch_size < 1:
        raise InvalidInputError(f"batch_size must be at least 1, got {batch_size}")
    if batch_readahead is not None and batch_readahead < 1:
        raise InvalidInputError(f"batch_readahead must be at least 1, got {batch_readahead}")
    batches = max(1, int(_WINDOW_BYTES / schema.row_bytes) // batch_size)
    if any(leaf.is_blob for leaf in schema.leaves()):
        batches = 1  # nothing says how long blobs are
    if batch_readahead is not None:
        batches = min(batches, batch_readahead)
    ahead = _WINDOWS_AHEAD if batch_readahead is None else max(1, -(-batch_readahead // batches))
    windows = await _prepare(reader, selection, batch_size, batch_size * batches, projection)
    return _batches(reader, windows, batch_size, ahead)


async def _prepare(
    reader: GenericReader,
    selection: Selection,
    batch_size: int,
    window: int,
    projection: Schema | Sequence[str] | None,
) -> list[ReadTask]:
    if batch_size < 1:
        raise InvalidInputError(f"batch_size must be at least 1, got {batch_size}")
    parts = select(selection, reader.num_rows)
    resolved = await reader.initialise(projection, parts)
    inline = count(parts) <= config.inline_scheduling_threshold()
    pieces = cut(parts, window)
    if window > batch_size and len(pieces) > 1 and isinstance(parts[0], range) and len(parts) == 1:
        pieces = cut_at_pages(parts[0], window, reader.page_edges(resolved))
    return [
        ReadTask(reader, resolved, rows, reader.schedule(resolved, rows) if inline else None)
        for rows in pieces
    ]


async def _batches(
    reader: GenericReader, windows: list[ReadTask], batch_size: int, ahead: int
) -> AsyncGenerator[pa.RecordBatch, None]:
    stream = current_runtime().map_ordered(
        ReadTask.read, windows, window=ahead, suspends=reader.store.suspends
    )
    left: pa.RecordBatch | None = None  # what is less than a batch at the end of a window
    async with aclosing(stream):
        async for window in stream:
            at = 0
            if left is not None:
                at = min(batch_size - left.num_rows, window.num_rows)
                left = pa.concat_batches([left, window.slice(0, at)])
                if left.num_rows < batch_size:
                    continue
                yield left
                left = None
            while window.num_rows - at >= batch_size:
                yield window.slice(at, batch_size)
                at += batch_size
            if at < window.num_rows:
                left = window.slice(at)
    if left is not None:
        yield left
