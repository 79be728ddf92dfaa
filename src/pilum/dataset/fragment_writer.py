"""New fragments: data files written one after the other, cut where they are long enough.

```
batches ─► FileWriter (a file for every max_rows rows) ─► fragments, whose ids the commit assigns
```

They go to one place, or to several in turns (`targets`).  Every data file is closed (and synced) when it is handed
out.  A writer that is aborted removes what it wrote.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from pilum import arrays
from pilum.dataset.fragment_metadata import metadata_of
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.file import FileWriter
from pilum.io import Store
from pilum.schema import Schema, is_prepared
from pilum.schema.jsonb import is_json_text, jsonb_of_text
from pilum.table import DataFile, Fragment, data_file_name

__all__ = ["FragmentWriter", "Place", "conformed", "described_file", "remove_fragments"]


class Place(NamedTuple):
    """A folder for data files.

    Attributes:
        store: the store they are created in.
        folder: what their names are put behind: ``data/``, or nothing.
        base_id: base path that this is; None for the table itself.
    """

    store: Store
    folder: str = "data/"
    base_id: int | None = None


class FragmentWriter:
    """Writes batches into new fragments.

    Args:
        places: where the files go, in turns.
        schema: of the files, with the field ids of the table.
        version: file format.
        max_rows: rows of a fragment at most.
        max_bytes: size of a data file, checked between batches.
        page_bytes: bytes of a page at most; None for the writer's own limit.
        progress: told about every fragment: ``begin`` and ``complete``, awaitable or not.
    """

    def __init__(
        self,
        places: Sequence[Place],
        schema: Schema,
        version: tuple[int, int],
        *,
        max_rows: int = 1 << 20,
        max_bytes: int = 90 << 30,
        page_bytes: int | None = None,
        progress: Any = None,
    ) -> None:
        for field in schema.walk():
            if is_prepared(field):
                raise UnsupportedError(
                    f"column {field.name!r}: datasets do not take descriptors of blobs yet; write a file with"
                    " LanceFileSession.open_writer and commit it as a fragment"
                )
        self._places, self._schema, self._version = places, schema, version
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._limits = {} if page_bytes is None else {"page_bytes": page_bytes}
        self._progress = progress
        self._writer: FileWriter | None = None
        self._rows = 0
        self.fragments: list[Fragment] = []

    @property
    def _place(self) -> Place:
        """Where the file goes that is written, or comes next."""
        return self._places[len(self.fragments) % len(self._places)]

    async def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; columns are matched by name.

        Raises:
            InvalidInputError: a value does not fit its column.
        """
        at = 0
        while at < batch.num_rows:
            if self._writer is None:
                await _tell(self._progress, "begin", Fragment(0, (), 0))
                place = self._place
                self._writer = await FileWriter.create(
                    place.store,
                    place.folder + data_file_name(),
                    self._schema,
                    version=self._version,
                    **self._limits,
                )
                self._rows = 0
            taken = min(batch.num_rows - at, self._max_rows - self._rows)
            await self._writer.write(conformed(batch.slice(at, taken), self._schema))
            at += taken
            self._rows += taken
            if self._rows == self._max_rows or self._writer.position >= self._max_bytes:
                await self._close()

    async def _close(self) -> None:
        if self._writer is not None:
            file, rows = await described_file(self._writer)
            self._writer = None
            file = replace(file, base_id=self._place.base_id)
            fragment = Fragment(id=0, files=(file,), physical_rows=rows)
            self.fragments.append(fragment)
            await _tell(self._progress, "complete", fragment)

    async def finish(self) -> list[Fragment]:
        """Close the last file; returns all fragments."""
        await self._close()
        return self.fragments

    async def abort(self) -> None:
        """Remove everything that was written."""
        if self._writer is not None:
            await self._writer.abort()
            self._writer = None
        await remove_fragments(self._places, self.fragments)


def conformed(batch: pa.RecordBatch, schema: Schema) -> pa.RecordBatch:
    """Columns in schema order with the stored types; nulls in a required column are refused."""
    columns = []
    for field in schema.fields:
        column = batch.column(field.name)
        if field.logical_type == "json" and is_json_text(column.type):
            column = jsonb_of_text(column, field.name)
        if isinstance(column, pa.ExtensionArray) and not isinstance(field.arrow_type, pa.BaseExtensionType):
            column = column.storage
        if not column.type.equals(field.arrow_type):
            column = arrays.compute().cast(column, field.arrow_type)
        if column.null_count and not field.nullable:
            raise InvalidInputError(
                f"column {field.name!r} is not nullable but holds {column.null_count} nulls"
            )
        columns.append(column)
    if not columns:
        return batch
    return pa.RecordBatch.from_arrays(columns, schema=schema.to_arrow())


async def described_file(writer: FileWriter) -> tuple[DataFile, int]:
    """Finish a data file; returns its entry and its number of rows."""
    done = await writer.finish()
    name = done.path.removeprefix("data/")
    file = DataFile(name, tuple(done.fields), tuple(done.column_indices), done.version, done.size)
    return file, done.num_rows


async def _tell(progress: Any, what: str, fragment: Fragment) -> None:
    """Call a progress object; it may answer with an awaitable."""
    if progress is not None:
        answer = getattr(progress, what)(metadata_of(fragment))
        if inspect.isawaitable(answer):
            await answer


async def remove_fragments(places: Sequence[Place], fragments: Iterable[Fragment]) -> None:
    """Remove data files that nothing refers to; best effort.

    Args:
        places: where they were written; files of other places are left alone.
        fragments: their descriptions.
    """
    by_base = {place.base_id: place for place in places}
    for fragment in fragments:
        for data_file in fragment.files:
            place = by_base.get(data_file.base_id)
            if place is not None:
                with contextlib.suppress(Exception):
                    await place.store.delete(place.folder + data_file.path)
