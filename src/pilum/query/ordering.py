"""ORDER BY: rows sorted by one or several columns (spec/api.md, section 5).

Every column becomes integers that sort as its values do: NaN above all numbers, -0.0 equal to 0.0, strings by their
UTF-8 bytes, nulls first or last as asked.  Equal rows keep the order of the scan.  With a limit only the best rows
are kept while the scan goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays, distinct
from pilum.errors import UnsupportedError

__all__ = ["ColumnOrdering", "TopRows", "parse_orderings", "sort_indices"]

types = pa.types


@dataclass(frozen=True)
class ColumnOrdering:
    """A column to sort by.

    Attributes:
        column_name: name of the column.
        ascending: smallest first.
        nulls_first: nulls before or after all values, whatever the direction.
    """

    column_name: str
    ascending: bool = True
    nulls_first: bool = False


def parse_orderings(order_by: Any) -> tuple[ColumnOrdering, ...]:
    """Names, `ColumnOrdering` values (anything with these attributes) or dictionaries with these keys.

    Raises:
        TypeError: something else.
    """
    if order_by is None:
        return ()
    if isinstance(order_by, str) or not isinstance(order_by, Iterable):
        raise TypeError("order_by is a list of column names or of column orderings")
    found = []
    for one in order_by:
        if isinstance(one, str):
            found.append(ColumnOrdering(one))
        elif isinstance(one, Mapping):
            found.append(ColumnOrdering(**one))
        elif hasattr(one, "column_name"):
            found.append(
                ColumnOrdering(
                    one.column_name,
                    bool(getattr(one, "ascending", True)),
                    bool(getattr(one, "nulls_first", False)),
                )
            )
        else:
            raise TypeError(f"order_by: {one!r} is neither a column name nor a column ordering")
    return tuple(found)


def sort_indices(
    columns: Sequence[Any], orderings: Sequence[ColumnOrdering], limit: int | None = None
) -> npt.NDArray[np.int64]:
    """The order of rows.

    Args:
        columns: the values of each ordering's column: arrays or chunked arrays of the same length.
        orderings: how to sort, the first one first.
        limit: how many rows are wanted.
    """
    keys = [_key(column, ordering) for column, ordering in zip(columns, orderings, strict=True)]
    if len(keys) == 1:
        order = np.argsort(keys[0], kind="stable")
    else:
        order = np.lexsort(keys[::-1])
    return order if limit is None else order[:limit]


def _key(column: Any, ordering: ColumnOrdering) -> npt.NDArray[Any]:
    if isinstance(column, pa.ChunkedArray):
        column = (
            column.chunk(0)
            if column.num_chunks == 1
            else pa.concat_arrays(column.chunks or [arrays.empty(column.type)])
        )
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    kind = column.type
    if types.is_nested(kind) or types.is_null(kind):
        if types.is_null(kind):
            return np.zeros(len(column), np.int64)
        raise UnsupportedError(f"sorting by column {ordering.column_name!r} of type {kind}")
    if types.is_float16(kind):
        column = column.cast(pa.float32())
    if types.is_boolean(kind):
        column = column.cast(pa.uint8())
    null = ~arrays.valid(column)
    if types.is_floating(column.type):
        # NumPy sorts NaN behind all numbers, as one value.
        values = arrays.filled(column) + 0.0
        _, ranks = distinct.unique_inverse(values)
    elif types.is_integer(column.type) and column.type.bit_width < 64:
        ranks = arrays.filled(column).astype(np.int64)
    else:
        ranks = arrays.compute().rank(column, sort_keys="ascending", tiebreaker="dense")
        ranks = arrays.to_numpy(ranks).astype(np.int64)
    if not ordering.ascending:
        ranks = -ranks
    if null.any():
        ranks[null] = np.iinfo(np.int64).min if ordering.nulls_first else np.iinfo(np.int64).max
    return ranks


class TopRows:
    """The first ``limit`` rows of an order while batches come in; all rows without a limit.

    Args:
        orderings: how to sort.
        names: the column of each ordering in the batches.
        limit: how many rows are wanted.
    """

    def __init__(self, orderings: Sequence[ColumnOrdering], names: Sequence[str], limit: int | None) -> None:
        self._orderings = orderings
        self._names = names
        self._limit = limit
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """One more batch, in scan order."""
        self._batches.append(batch)
        self._rows += batch.num_rows
        if self._limit is not None and self._rows > 4 * self._limit + (1 << 17):
            kept = self.sorted(batch.schema).to_batches()
            self._batches, self._rows = list(kept), sum(one.num_rows for one in kept)

    def sorted(self, schema: pa.Schema) -> pa.Table:
        """The rows in order."""
        table = pa.Table.from_batches(self._batches, schema=schema)
        if not table.num_rows:
            return table
        order = sort_indices([table.column(name) for name in self._names], self._orderings, self._limit)
        return arrays.take(table, order)
