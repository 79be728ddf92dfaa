"""The computing half of a reader: rows to byte ranges, bytes to Arrow.  No I/O, no await.

```
schedule        rows ─► ReadPlan: the page reads of all columns and the flat list of their ranges
decode_pages    bytes of those ranges ─► decoded pages of each leaf
decode_batch    the same ─► one record batch
```

Some pages must look up where values lie before they can ask for them; decoding then returns a second plan instead of
rows, in which what is decoded already is kept.  Errors name file, column and page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding import Decoded, PageRead, Range, Rows, assemble
from pilum.errors import CorruptFileError, PilumError
from pilum.file.metadata import Column, relocated
from pilum.io import Bytes
from pilum.schema import Field, Schema

__all__ = [
    "DAMAGE",
    "ReadPlan",
    "ResolvedProjection",
    "damaged_page",
    "decode_batch",
    "decode_pages",
    "scaled",
    "scaled_leaves",
    "schedule",
]

# What damaged bytes can make NumPy, Arrow or protobuf raise in spite of all checks; all mean the same.
DAMAGE = (
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    ArithmeticError,
    MemoryError,
    TypeError,
    pa.ArrowException,
)


class ResolvedProjection(NamedTuple):
    """A schema resolved against the columns of one file.

    Attributes:
        schema, arrow: what is read.
        columns: one for each leaf, in the order of `Schema.leaves`.
        scales: items per row of each leaf, above 1 inside structural fixed-size lists.
        spans: first leaf of each top-level field, then the number of leaves.
        mapping: the field ids and columns it was resolved with.
    """

    schema: Schema
    arrow: Any
    columns: tuple[Column, ...]
    scales: tuple[int, ...]
    spans: tuple[int, ...]
    mapping: tuple[Sequence[int], Sequence[int]] | None

    def leaf_name(self, leaf: int) -> str:
        """Name of a leaf, for messages."""
        return repr(self.schema.leaves()[leaf].name)


class ReadPlan(NamedTuple):
    """A scheduled read: what to fetch and who decodes it.

    Attributes:
        projection: the columns.
        slots: the page reads.
        ranges: what to fetch, in the order of the slots.
        num_rows: rows that decoding must give.
        rows: the range of rows, where it is one.
    """

    projection: ResolvedProjection
    slots: list[Slot]
    ranges: list[Range]
    num_rows: int
    rows: tuple[int, int] = (-1, -1)


class Slot(NamedTuple):
    """One scheduled page: which leaf it belongs to and where its buffers are in the flat list.

    Attributes:
        page: its number; None for scattered rows of all pages (`ColumnRead`).
    """

    leaf: int
    page: int | None
    read: PageRead | ColumnRead
    first: int
    last: int


class ColumnRead(NamedTuple):
    """A scheduled read of scattered rows of all pages of a column (`pilum.encoding.column_rows`).

    Attributes:
        ranges: the chunks that hold them.
        decode: takes their bytes; None if the pages must be decoded one by one.
        column, rows: what to decode then.
    """

    ranges: list[Range]
    decode: Callable[[list[Bytes]], Decoded | None]
    column: Column
    rows: npt.NDArray[np.int64]

    def pages(self, buffers: list[Bytes]) -> Iterator[tuple[int, PageRead, list[Bytes]]]:
        """Number, read and bytes of each page, which are made of the chunks in ``buffers``."""
        at = 0
        for number, part in self.column.overlapping(self.rows):
            read = self.column.pages[number].schedule(part)
            parts = []
            for start, stop in read.ranges:
                first, left = at, stop - start
                while left > 0 and at < len(buffers):
                    left -= len(buffers[at])
                    at += 1
                parts.append(np.concatenate(buffers[first:at]))
            yield number, read, parts


def schedule(path: str, resolved: ResolvedProjection, rows: Rows) -> ReadPlan:
    """Plan the read of rows whose pages are initialised: page reads and the flat list of their ranges.  Pure."""
    slots: list[Slot] = []
    ranges: list[Range] = []
    for leaf, column in enumerate(resolved.columns):
        scale = resolved.scales[leaf]
        wanted = rows if scale == 1 else scaled(rows, scale)
        together = None if isinstance(wanted, range) else _schedule_column(column, wanted)
        if together is not None:
            slots.append(Slot(leaf, None, together, len(ranges), len(ranges) + len(together.ranges)))
            ranges += together.ranges
            continue
        for number, part in column.overlapping(wanted):
            try:
                read = column.pages[number].schedule(part)
            except PilumError as error:
                raise relocated(error, path, resolved.leaf_name(leaf), number) from None
            except DAMAGE as error:
                raise damaged_page(error, path, resolved, leaf, number) from error
            first = len(ranges)
            ranges += read.ranges
            slots.append(Slot(leaf, number, read, first, len(ranges)))
    span = (rows.start, rows.stop) if isinstance(rows, range) else (-1, -1)
    return ReadPlan(resolved, slots, ranges, len(rows), span)


def _schedule_column(column: Column, rows: npt.NDArray[np.int64]) -> ColumnRead | None:
    found = column.together.schedule(rows) if column.together is not None and len(rows) else None
    return None if found is None else ColumnRead(*found, column, rows)


def decode_pages(path: str, plan: ReadPlan, buffers: list[Bytes]) -> list[list[Decoded]] | ReadPlan:
    """The pages of each leaf, or what must be read first where positions had to be looked up.  Pure."""
    resolved, slots = plan.projection, plan.slots
    if len(slots) == 1 and len(resolved.columns) == 1:  # a small fragment: no lists of lists to build
        slot = slots[0]
        if isinstance(slot.read, ColumnRead):
            return [_decode_column(path, resolved, slot.leaf, slot.read, buffers)]
        only = _decode_page(path, resolved, slot.leaf, slot.page, slot.read, buffers)
        return [[only]] if isinstance(only, Decoded) else _second_round(plan, [(slot, only)])
    results: list[tuple[Slot, Decoded | PageRead]] = []
    again = False
    for slot in slots:
        own = buffers[slot.first : slot.last]
        if isinstance(slot.read, ColumnRead):
            results += [(slot, page) for page in _decode_column(path, resolved, slot.leaf, slot.read, own)]
            continue
        result = _decode_page(path, resolved, slot.leaf, slot.page, slot.read, own)
        again = again or isinstance(result, PageRead)
        results.append((slot, result))
    if again:
        return _second_round(plan, results)
    leaves: list[list[Decoded]] = [[] for _ in resolved.columns]
    for slot, result in results:
        assert isinstance(result, Decoded)
        leaves[slot.leaf].append(result)
    return leaves


def decode_alike(plan: ReadPlan, buffers: Sequence[list[Bytes]]) -> list[Decoded] | None:
    """One page of each leaf with the rows of several files that share a plan.  Pure.

    Args:
        plan: of all of them.
        buffers: the bytes of its ranges, of each file.

    Returns:
        None where they must be decoded one by one, also to find out which of them is damaged.
    """
    slots, columns = plan.slots, plan.projection.columns
    if [slot.leaf for slot in slots] != list(range(len(columns))):
        return None
    decoders = [
        (slot.read.decode_alike, slot.first)
        for slot in slots
        if isinstance(slot.read, PageRead) and slot.read.decode_alike is not None
    ]
    found: list[Decoded] = []
    if len(decoders) == len(slots):
        try:
            for decode, first in decoders:
                decoded = decode([own[first] for own in buffers])
                if decoded is None:
                    return None
                found.append(decoded)
        except (PilumError, *DAMAGE):
            return None
    return found or None


def _decode_column(
    path: str, resolved: ResolvedProjection, leaf: int, read: ColumnRead, buffers: list[Bytes]
) -> list[Decoded]:
    """Scattered rows of a column, of all its pages at once or else page by page, which finds out what is wrong."""
    try:
        found = read.decode(buffers)
    except (PilumError, *DAMAGE):
        found = None
    if found is not None:
        return [found]
    results = []
    for number, page, parts in read.pages(buffers):
        result = _decode_page(path, resolved, leaf, number, page, parts)
        assert isinstance(result, Decoded)
        results.append(result)
    return results


def _decode_page(
    path: str, resolved: ResolvedProjection, leaf: int, page: int | None, read: PageRead, buffers: list[Bytes]
) -> Decoded | PageRead:
    try:
        return read.decode(buffers)
    except PilumError as error:
        raise relocated(error, path, resolved.leaf_name(leaf), page) from None
    except DAMAGE as error:
        raise damaged_page(error, path, resolved, leaf, page) from error


def decode_batch(path: str, plan: ReadPlan, buffers: list[Bytes]) -> pa.RecordBatch | ReadPlan:
    """The batch, or what must be read first.  Pure."""
    leaves = decode_pages(path, plan, buffers)
    if isinstance(leaves, ReadPlan):
        return leaves
    resolved, num_rows = plan.projection, plan.num_rows
    arrays = []
    for position, field in enumerate(resolved.schema.fields):
        low, high = resolved.spans[position], resolved.spans[position + 1]
        try:
            array = assemble(field, leaves[low:high])
            if len(array) != num_rows:
                raise CorruptFileError(f"{len(array)} rows decoded, {num_rows} expected")
        except PilumError as error:
            raise relocated(error, path, field.name) from None
        except DAMAGE as error:
            raise damaged_page(error, path, resolved, low, None) from error
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=resolved.arrow)


def damaged_page(
    error: BaseException, path: str, resolved: ResolvedProjection, leaf: int, page: int | None
) -> PilumError:
    """What an exception of `DAMAGE` says to the caller."""
    name = resolved.leaf_name(leaf) if leaf < len(resolved.columns) else None
    found = CorruptFileError(f"the page cannot be decoded: {type(error).__name__}: {error}")
    return relocated(found, path, name, page)


def _second_round(plan: ReadPlan, results: list[tuple[Slot, Decoded | PageRead]]) -> ReadPlan:
    """Slots that keep what is decoded and read what now is known."""
    slots: list[Slot] = []
    ranges: list[Range] = []
    for slot, result in results:
        read = result if isinstance(result, PageRead) else PageRead([], _Done(result))
        first = len(ranges)
        ranges += read.ranges
        slots.append(Slot(slot.leaf, slot.page, read, first, len(ranges)))
    return ReadPlan(plan.projection, slots, ranges, plan.num_rows)


class _Done:
    """A decode step that is already done."""

    __slots__ = ("_decoded",)

    def __init__(self, decoded: Decoded) -> None:
        self._decoded = decoded

    def __call__(self, buffers: list[Bytes]) -> Decoded:
        return self._decoded


def scaled_leaves(field: Field, scale: int) -> list[tuple[Field, int]]:
    """The leaves of a field with the items they hold per row (more than one below a fixed-size list of struct)."""
    if field.is_leaf:
        return [(field, scale)]
    if field.logical_type.startswith("fixed_size_list:"):
        scale *= field.arrow_type.list_size
    return [pair for child in field.children for pair in scaled_leaves(child, scale)]


def scaled(rows: Rows, scale: int) -> Rows:
    """Row numbers as item numbers."""
    if scale == 1:
        return rows
    if isinstance(rows, range):
        return range(rows.start * scale, rows.stop * scale)
    return (rows[:, None] * scale + np.arange(scale)).reshape(-1)
