"""Writing one data file of format 2.0 (`spec/file-2.0-and-0.1.md`, A.1 and A.11).

```
batch ─► arrays per top-level field, kept until 8 MiB ─► one page in each of its columns ─► appended
         (struct headers: one page for the whole file)              finish: headers, metadata, footer
```

New tables have no reason to use this format; tables that are of this format are appended to in it, and so are their
indices.  The container is that of `writer`; what differs is the columns and the messages around pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pilum.encoding import EncodedPage
from pilum.encoding.v2_0.encode import BlobRows, StructRows, encode_rows, struct_header
from pilum.errors import UnsupportedError
from pilum.file.container import ALIGNMENT, COLUMN_ENCODING_URL, closing_sections
from pilum.file.storable import check_described_blobs, check_widths
from pilum.file.writer import PAGE_BYTES, FileWriter, WrittenFile
from pilum.io import ObjectWriter, Store
from pilum.schema import Field, Schema, column_fields

__all__ = ["FileWriter20"]

VERSION = (2, 0)
_FOOTER_VERSION = (0, 3)
_ARRAY_ENCODING_URL = "/lance.encodings.ArrayEncoding"
_PADDING = bytes(ALIGNMENT)


class _Column:
    """One column being written.

    Attributes:
        pages: serialized messages of the finished ones.
        header: rows of a struct so far, None for all other columns.
        blob: the pages hold descriptors.
    """

    __slots__ = ("blob", "field", "header", "pages")

    def __init__(self, field: Field) -> None:
        self.field = field
        self.pages: list[bytes] = []
        self.blob = field.is_blob
        is_struct = pa.types.is_struct(field.arrow_type) and not field.is_packed
        self.header: int | None = 0 if is_struct else None


class _Top:
    """A top-level field: its columns, and the arrays that wait for the next page."""

    __slots__ = ("columns", "field", "nbytes", "waiting")

    def __init__(self, field: Field) -> None:
        self.field = field
        self.columns = [_Column(owner) for owner in column_fields(Schema((field,), {}), VERSION)]
        self.waiting: list[Any] = []
        self.nbytes = 0


class FileWriter20(FileWriter):
    """Writes record batches to one data file of format 2.0; use `create`, or `FileWriter.create` with version (2, 0)."""

    def __init__(self, sink: ObjectWriter, path: str, schema: Schema, page_bytes: int) -> None:
        super().__init__(sink, path, Schema((), schema.metadata), VERSION, page_bytes)
        self.schema = schema
        self._fields = schema.fields
        self._tops = [_Top(field) for field in schema.fields]

    @classmethod
    async def create(
        cls,
        store: Store,
        path: str,
        schema: Schema,
        *,
        version: tuple[int, int] = VERSION,
        page_bytes: int = PAGE_BYTES,
    ) -> FileWriter20:
        """Begin a file; arguments as `FileWriter.create`.

        Raises:
            UnsupportedError: a type that format 2.0 cannot hold.
        """
        if version != VERSION:
            raise UnsupportedError(f"this writer writes file format 2.0, not {version[0]}.{version[1]}")
        column_fields(schema, VERSION)
        check_widths(schema.fields, VERSION)
        check_described_blobs(schema, VERSION)
        return cls(await store.create(path), path, schema, page_bytes)

    async def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; columns are matched by position and must have the types of the schema.

        Raises:
            InvalidInputError: other columns than the schema's, or nulls that the format cannot hold.
        """
        self._check_columns(batch)
        self.num_rows += batch.num_rows
        for column, top in zip(batch.columns, self._tops, strict=True):
            for piece in self._pieces(column):
                top.waiting.append(piece)
                top.nbytes += piece.nbytes
                if top.nbytes >= self._page_bytes:
                    await self._flush(top)

    async def _flush(self, top: _Top) -> None:
        arrays = [_stored(array) for array in top.waiting]
        top.waiting, top.nbytes = [], 0
        array = arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)
        for column, rows in zip(top.columns, encode_rows(top.field, array), strict=True):
            if isinstance(rows, StructRows):
                assert column.header is not None
                column.header += rows.length
                continue
            if isinstance(rows, BlobRows):
                rows = rows.page(await self._write_blobs(rows))
            if rows.length:
                await self._write_page(column, rows)

    async def _write_blobs(self, rows: BlobRows) -> Any:
        """Write the bytes of blobs, each aligned; returns the position of each, 0 for empty ones."""
        offsets = rows.values.offsets
        positions = np.zeros(len(offsets) - 1, np.uint64)
        for number in np.flatnonzero(np.diff(offsets)).tolist():
            positions[number] = self._position
            await self._write_aligned([rows.values.data[int(offsets[number]) : int(offsets[number + 1])]])
        return positions

    async def _write_page(self, column: _Column, page: EncodedPage) -> None:
        offsets, sizes = [], []
        parts: list[Any] = []
        at = self._position
        for buffer in page.buffers:
            size = len(buffer)
            offsets.append(at)
            sizes.append(size)
            padding = -size % ALIGNMENT
            parts.append(buffer)
            if padding:
                parts.append(_PADDING[:padding])
            at += size + padding
        if parts:
            await self._sink.write(parts)
        self._position = at
        column.pages.append(_page_message(offsets, sizes, page))

    async def finish(self) -> WrittenFile:
        """Write what is waiting, the headers of structs, the metadata and the footer."""
        if self.finished is not None:
            return self.finished
        from pilum.proto import file_pb2

        for top in self._tops:
            if top.waiting:
                await self._flush(top)
        columns = [column for top in self._tops for column in top.columns]
        for column in columns:
            if column.header is not None:
                await self._write_page(column, struct_header(column.header))
        descriptor = file_pb2.FileDescriptor(schema=self.schema.to_proto_message(), length=self.num_rows)
        tail = closing_sections(
            descriptor.SerializeToString(deterministic=True),
            [_column_metadata(column) for column in columns],
            self._buffers,
            self._position,
            _FOOTER_VERSION,
        )
        await self._sink.write([tail])
        self._position += len(tail)
        await self._sink.finish()
        ids = tuple(column.field.id for column in columns)
        self.finished = WrittenFile(
            self.path, ids, tuple(range(len(ids))), VERSION, self._position, self.num_rows
        )
        return self.finished


def _stored(array: Any) -> Any:
    """Extension arrays as what they store, so that pieces can be concatenated."""
    while isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return array


def _any(url: str, value: bytes) -> bytes:
    from google.protobuf.any_pb2 import Any as AnyMessage

    data: bytes = AnyMessage(type_url=url, value=value).SerializeToString()
    return data


def _page_message(offsets: list[int], sizes: list[int], page: EncodedPage) -> bytes:
    from pilum.proto import container_pb2

    direct = container_pb2.DirectEncoding(encoding=_any(_ARRAY_ENCODING_URL, page.layout))
    message = container_pb2.ColumnMetadata.Page(
        buffer_offsets=offsets,
        buffer_sizes=sizes,
        length=page.length,
        encoding=container_pb2.Encoding(direct=direct),
    )
    return message.SerializeToString()


def _column_metadata(column: _Column) -> bytes:
    from pilum.proto import container_pb2

    # ``values {}``, for blobs ``blob { inner { values {} } }``
    value = b"\x1a\x04\x0a\x02\x0a\x00" if column.blob else b"\x0a\x00"
    direct = container_pb2.DirectEncoding(encoding=_any(COLUMN_ENCODING_URL, value))
    message = container_pb2.ColumnMetadata(encoding=container_pb2.Encoding(direct=direct))
    for page in column.pages:
        message.pages.add().MergeFromString(page)
    return message.SerializeToString()
