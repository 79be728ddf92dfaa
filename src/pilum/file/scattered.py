"""Scattered rows of one file, of all columns in one go where that can be (`pilum.encoding.scattered`).

The tables that it takes are made at the first such read of a projection and kept in the session.  Columns that cannot
take part are planned page by page (`plan`); their bytes are fetched together with those of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum.encoding import Rows
from pilum.encoding.scattered import Located, ScatteredRows
from pilum.errors import PilumError
from pilum.file.plan import DAMAGE, ReadPlan, ResolvedProjection, decode_batch, schedule
from pilum.io import Bytes, current_runtime
from pilum.schema import Schema

if TYPE_CHECKING:
    from pilum.file.reader import FileReader

__all__ = ["FEW_ROWS", "Split", "read_scattered", "scattered_now"]

FEW_ROWS = 32  # rows of a range: more are had faster chunk by chunk
_FEW_ROWS_OF_ONE = 8
_OFFLOAD_BYTES = 256 << 10  # decoding more bytes than this leaves the event loop


class Split(NamedTuple):
    """A projection, divided by how scattered rows are read.

    Attributes:
        resolved: all of it.
        rows: the columns that are read in one go.
        rest: the others; None if there are none.
    """

    resolved: ResolvedProjection
    rows: ScatteredRows
    rest: ResolvedProjection | None


async def read_scattered(
    reader: FileReader, resolved: ResolvedProjection, rows: Rows
) -> pa.RecordBatch | None:
    """Rows whose pages are initialised as one batch; None if they are to be read page by page."""
    if isinstance(rows, range):
        if len(rows) > FEW_ROWS:
            return None
        rows = np.arange(rows.start, rows.stop)
    step = _locate(reader, resolved, rows)
    if step is None:
        return None
    split, located = step
    plan = None if split.rest is None else schedule(reader.path, split.rest, rows)
    if plan is None and not reader.store.suspends and reader.body is None:
        data, more = await reader.store.get_joined(reader.path, located.spans, who="data"), []
    else:
        ranges = [(start, end) for start, end in located.spans.tolist()]
        buffers = await reader.fetch(ranges if plan is None else ranges + plan.ranges)
        data = buffers[0] if len(ranges) == 1 else np.concatenate(buffers[: len(ranges)])
        more = buffers[len(ranges) :]
    if len(data) > _OFFLOAD_BYTES:
        arrays = await current_runtime().offload(_decode, split, located, data)
    else:
        arrays = _decode(split, located, data)
    if arrays is None:
        return None
    if plan is None:
        return pa.RecordBatch.from_arrays(arrays, schema=resolved.arrow)
    rest = decode_batch(reader.path, plan, more)
    if isinstance(rest, ReadPlan):
        rest = await reader.execute(rest)
    columns: list[pa.Array | None] = [None] * len(resolved.schema.fields)
    for position, array in zip(split.rows.positions, arrays, strict=True):
        columns[position] = array
    others = iter(rest.columns)
    return pa.RecordBatch.from_arrays(
        [next(others) if column is None else column for column in columns], schema=resolved.arrow
    )


def scattered_now(
    reader: FileReader, resolved: ResolvedProjection, rows: npt.NDArray[np.int64]
) -> pa.RecordBatch | None:
    """The same where all columns are read in one go and nothing is waited for; None if `read_scattered` is to do it.

    A dozen coroutines less: a quarter of the time of a take of few rows.
    """
    step = _locate(reader, resolved, rows)
    if step is None:
        return None
    split, located = step
    if split.rest is not None or located.nbytes > _OFFLOAD_BYTES:
        return None
    data = reader.store.joined_now(reader.path, located.spans, located.nbytes)
    arrays = None if data is None else _decode(split, located, data)
    return None if arrays is None else pa.RecordBatch.from_arrays(arrays, schema=resolved.arrow)


def _locate(
    reader: FileReader, resolved: ResolvedProjection, rows: npt.NDArray[np.int64]
) -> tuple[Split, Located] | None:
    columns = resolved.columns
    if len(columns) < 2 and len(rows) < _FEW_ROWS_OF_ONE and (not columns or len(columns[0].pages) < 2):
        return None  # one page is read as quickly on its own
    split = _split(reader, resolved)
    located = None if split is None else split.rows.locate(rows, reader.store.block_size)
    return None if split is None or located is None else (split, located)


def _decode(split: Split, located: Located, data: Bytes) -> list[pa.Array] | None:
    try:
        return split.rows.decode(located, data)
    except (PilumError, *DAMAGE):
        return None  # reading page by page finds out what is wrong


def _split(reader: FileReader, resolved: ResolvedProjection) -> Split | None:
    """How the columns of a projection are read; None while pages are missing, or if none is read in one go."""
    key = (reader.store.uri, reader.path, "scattered rows", id(resolved.schema))
    found: Split | None = reader.split if reader.cache is None else reader.cache.get(key)
    if found is None or found.resolved is not resolved:
        if any(not column.ready for column in resolved.columns):
            return None
        found = _divided(resolved)
        if reader.cache is None:
            reader.split = found
        else:
            reader.cache.put(key, found, 500 + found.rows.nbytes)
    return found if found.rows.positions else None


def _divided(resolved: ResolvedProjection) -> Split:
    fields, spans = resolved.schema.fields, resolved.spans
    single = [spans[k + 1] - spans[k] == 1 and resolved.scales[spans[k]] == 1 for k in range(len(fields))]
    rows = ScatteredRows(
        [(field, resolved.columns[spans[k]].pages) if single[k] else None for k, field in enumerate(fields)]
    )
    others = [k for k in range(len(fields)) if k not in rows.positions]
    if not others:
        return Split(resolved, rows, None)
    leaves = [leaf for k in others for leaf in range(spans[k], spans[k + 1])]
    edges = [0]
    for k in others:
        edges.append(edges[-1] + spans[k + 1] - spans[k])
    schema = Schema(tuple([fields[k] for k in others]))
    rest = ResolvedProjection(
        schema,
        schema.to_arrow(),
        tuple([resolved.columns[leaf] for leaf in leaves]),
        tuple([resolved.scales[leaf] for leaf in leaves]),
        tuple(edges),
        resolved.mapping,
    )
    return Split(resolved, rows, rest)
