"""New columns of rows that exist: one more data file for every fragment (spec/table.md, sections 15.5 and 15.6).

```
live rows      v0      v1  v2          values that were computed
physical   [ v0  v0  v1  v2  v2 ]      what the file holds: deleted rows repeat a neighbour
                 x           x
```

A data file has a value for every physical row.  Values of deleted rows are never seen; a neighbour's value fits any
column, also one that allows no nulls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pilum import arrays, distinct
from pilum.dataset.fragment_writer import Place, conformed, described_file, remove_fragments
from pilum.dataset.writing import WriteOptions, append_version
from pilum.errors import InvalidInputError
from pilum.file import FileWriter
from pilum.query.snapshot import Snapshot
from pilum.schema import Schema
from pilum.table import DataFile, Fragment, data_file_name

__all__ = ["ColumnFile", "ValuesOf", "add_files"]

# The new values of the live rows of a fragment, in order.
ValuesOf = Callable[[Fragment], AsyncGenerator[pa.RecordBatch, None]]


class ColumnFile:
    """Writes a data file for some columns of a fragment, from the values of its live rows.

    Args:
        snapshot: the version.
        fragment: one of its fragments.
        schema: the columns, with their field ids.
    """

    def __init__(self, snapshot: Snapshot, fragment: Fragment, schema: Schema) -> None:
        self._snapshot, self._fragment, self._schema = snapshot, fragment, schema
        self._writer: FileWriter | None = None
        self._live: Any = None  # physical offsets of the live rows
        self._rows = 0  # live rows written
        self._physical = 0  # physical rows written
        self._last: pa.RecordBatch | None = None

    async def __aenter__(self) -> ColumnFile:
        version = append_version(self._snapshot.manifest, WriteOptions(mode="append"))
        deleted = await self._snapshot.deletions(self._fragment)
        if len(deleted):
            self._live = distinct.difference(np.arange(self._fragment.physical_rows, dtype=np.int64), deleted)
        path = "data/" + data_file_name()
        self._writer = await FileWriter.create(self._snapshot.store, path, self._schema, version=version)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            await self._writer.abort()

    async def write(self, batch: pa.RecordBatch) -> None:
        """Add the values of the next live rows.

        Raises:
            InvalidInputError: there are not so many rows, or a value does not fit.
        """
        if not batch.num_rows:
            return
        end = self._rows + batch.num_rows
        if end > self._fragment.num_rows:
            raise InvalidInputError(
                f"fragment {self._fragment.id} has {self._fragment.num_rows} rows, there are more values"
            )
        batch = conformed(batch, self._schema)
        if self._live is not None:
            positions = self._live[self._rows : end]
            wanted = np.arange(self._physical, int(positions[-1]) + 1)
            batch = arrays.take(batch, np.maximum(np.searchsorted(positions, wanted, side="right") - 1, 0))
        await self._put(batch)
        self._rows = end
        self._last = batch.slice(batch.num_rows - 1)

    async def _put(self, batch: pa.RecordBatch) -> None:
        assert self._writer is not None
        await self._writer.write(batch)
        self._physical += batch.num_rows

    async def finish(self) -> DataFile:
        """Close the file.

        Raises:
            InvalidInputError: there were not enough values.
        """
        fragment = self._fragment
        if self._rows < fragment.num_rows:
            raise InvalidInputError(
                f"fragment {fragment.id} has {fragment.num_rows} rows, there are only {self._rows} values"
            )
        behind = fragment.physical_rows - self._physical
        if behind:
            last = self._last
            if last is None:  # no row is left
                arrow = self._schema.to_arrow()
                last = pa.RecordBatch.from_arrays([pa.nulls(1, one.type) for one in arrow], schema=arrow)
            await self._put(arrays.take(last, np.zeros(behind, np.int64)))
        assert self._writer is not None
        file, _ = await described_file(self._writer)
        self._writer = None
        return file


async def add_files(
    snapshot: Snapshot, fragments: Sequence[Fragment], schema: Schema, values_of: ValuesOf
) -> list[Fragment]:
    """The fragments with one more file each, in which ``schema`` has the values that are computed.

    Raises:
        InvalidInputError: there are not as many values as rows, or one does not fit.
    """
    result: list[Fragment] = []
    made: list[Fragment] = []
    try:
        for fragment in fragments:
            async with ColumnFile(snapshot, fragment, schema) as file:
                async with aclosing(values_of(fragment)) as values:
                    async for batch in values:
                        await file.write(batch)
                added = await file.finish()
            made.append(Fragment(0, (added,), 0))
            result.append(replace(fragment, files=(*fragment.files, added)))
    except BaseException:
        await remove_fragments([Place(snapshot.store)], made)
        raise
    return result
