"""Files of blobs beside a data file, asynchronous (`spec/api.md`, sections 6 and 8).

```
data/x.lance                                        the data file; it need not exist yet
data/x/10100000000000000000000000000000.blob        the file with id 5: bits of the id, lowest first

packed       blob 0 │ blob 1 │ …    many blobs back to back, no gaps; a descriptor says id, offset and size
dedicated    one blob               a descriptor says id and size
```

Bytes go to the store as they come; of packed blobs two numbers each are kept.  The file appears under its name
when it is finished, and not at all when a write fails, the writer is aborted or its block is left before.
The synchronous twins are in `synchronous_blobs.py`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding.arrow_blocks import from_arrow
from pilum.encoding.blocks import FixedBlock, VariableBlock
from pilum.encoding.kernels import ranges
from pilum.encoding.prepared_blobs import DEDICATED, PACKED
from pilum.errors import InvalidInputError
from pilum.file.blob_descriptors import BlobDescriptor, blob_bytes, check_id, packed_array
from pilum.io import ObjectWriter, Store
from pilum.schema import prepared_field

__all__ = ["AsyncDedicatedBlobWriter", "AsyncPackedBlobWriter"]

_SUFFIX = ".lance"
# Values with gaps between them are put together for one write up to this many bytes.
_GATHERED = 8 << 20


def sidecar_path(data_file: str, blob_id: int) -> str:
    """Key of a file of blobs.

    Raises:
        InvalidInputError: (a `ValueError`) the data file has no name that ends in ``.lance``.
    """
    path = "/".join(part for part in data_file.split("/") if part)
    stem = path.removesuffix(_SUFFIX)
    if stem == path or not stem or stem.endswith("/"):
        raise InvalidInputError(
            f"blobs lie beside a data file, whose name ends in {_SUFFIX}, not {data_file!r}"
        )
    return f"{stem}/{f'{blob_id:032b}'[::-1]}.blob"


class _BlobWriter:
    """What both writers share: one file, from its first byte to its name."""

    def __init__(self, store: Store, sink: ObjectWriter, blob_id: int) -> None:
        self._store, self._sink, self._blob_id = store, sink, blob_id
        self._finished = False

    @classmethod
    async def open(cls, store: Store, data_file: str, blob_id: int) -> Self:
        """Begin a file.

        Args:
            store: where the data file lies, or will.
            data_file: its key.
            blob_id: 1 to 2**32 - 1; a file of the same id is replaced.

        Raises:
            InvalidInputError: (a `ValueError`) no such id; not the name of a data file.
        """
        number = check_id(blob_id)
        return cls(store, await store.create(sidecar_path(data_file, number)), number)

    @property
    def blob_id(self) -> int:
        """The id of the file."""
        self._check_open()
        return self._blob_id

    @property
    def path(self) -> str:
        """Where the file lies in its disk or bucket, without a leading slash."""
        self._check_open()
        uri = self._store.uri
        folder = urlsplit(uri).path if "://" in uri else uri.replace("\\", "/")
        return "/".join(part for part in (folder.strip("/"), self._sink.path) if part)

    def _check_open(self) -> None:
        if self._finished:
            self._refuse("is already finished")

    def _refuse(self, why: str) -> NoReturn:
        raise InvalidInputError(f"{type(self).__name__.removeprefix('Async')} {why}")

    async def _write(self, data: Any) -> None:
        try:
            await self._sink.write([data])
        except BaseException:
            await self.abort()
            raise

    async def _finish(self) -> None:
        self._check_open()
        self._finished = True
        try:
            await self._sink.finish()
        except BaseException:
            await self._sink.abort()
            raise

    async def abort(self) -> None:
        """Give up; nothing remains of the file.  Does nothing after it is finished."""
        if not self._finished:
            self._finished = True
            await self._sink.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abort()


class AsyncDedicatedBlobWriter(_BlobWriter):
    """Writes one blob to a file of its own; `LanceFileSession.open_dedicated_blob_writer` makes one.

    A block (``async with``) that is left without `finish` leaves no file.
    """

    async def write(self, data: Any) -> None:
        """Append bytes.

        Args:
            data: an object of bytes, which is not copied, or a sequence of numbers from 0 to 255.

        Raises:
            InvalidInputError: (a `ValueError`) the writer is finished.
            StoreError: (an `OSError`) the store failed; nothing remains of the file.
        """
        self._check_open()
        await self._write(blob_bytes(data))

    async def finish(self) -> BlobDescriptor:
        """Give the file its name; returns the descriptor of the blob."""
        await self._finish()
        return BlobDescriptor(DEDICATED, blob_id=self._blob_id, blob_size=self._sink.position)


class AsyncPackedBlobWriter(_BlobWriter):
    """Writes many blobs to one file; `LanceFileSession.open_packed_blob_writer` makes one.

    A block (``async with``) that is left without `finish` or `finish_array` leaves no file.
    """

    def __init__(self, store: Store, sink: ObjectWriter, blob_id: int) -> None:
        super().__init__(store, sink, blob_id)
        self._sizes: list[npt.NDArray[np.uint64]] = []
        self._valid: list[npt.NDArray[np.bool_]] = []
        self._single: list[int] = []  # sizes of single blobs, after those
        self._field: pa.Field | None = None

    @property
    def field(self) -> pa.Field:
        """The field of what `finish_array` returned; goes into the schema of a file.

        Raises:
            InvalidInputError: (a `ValueError`) before `finish_array`.
        """
        if self._field is None:
            self._refuse("has a field after finish_array only")
        return self._field

    async def write_blob(self, data: Any) -> None:
        """Append one blob.

        Args:
            data: an object of bytes, which is not copied, or a sequence of numbers from 0 to 255.

        Raises:
            InvalidInputError: (a `ValueError`) the writer is finished.
            StoreError: (an `OSError`) the store failed; nothing remains of the file.
        """
        self._check_open()
        view = blob_bytes(data)
        await self._write(view)
        self._single.append(len(view))

    async def write_blobs(self, payloads: pa.Array | pa.ChunkedArray) -> None:
        """Append a blob for each value.

        Args:
            payloads: an Arrow array of any binary type.  Nulls become null descriptors.

        Raises:
            InvalidInputError: (a `ValueError`) something else; the writer is finished.
            StoreError: (an `OSError`) the store failed; nothing remains of the file.
        """
        self._check_open()
        if not isinstance(payloads, pa.Array | pa.ChunkedArray):
            raise InvalidInputError(
                f"blobs are an Arrow array of a binary type, not {type(payloads).__name__}"
            )
        kind = payloads.type
        types = pa.types
        if not (
            types.is_binary(kind)
            or types.is_large_binary(kind)
            or types.is_binary_view(kind)
            or types.is_fixed_size_binary(kind)
        ):
            raise InvalidInputError(f"blobs are an Arrow array of a binary type, not of {kind}")
        for array in payloads.chunks if isinstance(payloads, pa.ChunkedArray) else [payloads]:
            # The values of a view lie anywhere, so they are copied: a few megabytes at a time.
            step = max(1, len(array))
            if types.is_binary_view(kind):
                step = max(1, len(array) * _GATHERED // max(1, array.nbytes))
            for at in range(0, len(array), step):
                await self._write_array(array.slice(at, step))

    async def _write_array(self, array: pa.Array) -> None:
        block, valid = from_arrow(array), arrays.valid(array)
        starts: npt.NDArray[Any]
        if isinstance(block, FixedBlock):
            sizes = np.where(valid, block.bits // 8, 0)
            starts = np.arange(len(array)) * (block.bits // 8)
        else:
            assert isinstance(block, VariableBlock)
            sizes = np.where(valid, np.diff(block.offsets), 0)
            starts = block.offsets[:-1]
        ends = np.cumsum(sizes, dtype=np.int64)
        filled = np.flatnonzero(sizes)
        done = 0
        while done < len(filled):
            low = int(ends[filled[done]] - sizes[filled[done]])
            stop = max(done + 1, int(np.searchsorted(ends[filled], low + _GATHERED, "right")))
            part = filled[done:stop]
            await self._write(ranges.gather(block.data, starts[part], sizes[part]))
            done = stop
        self._flush()
        self._sizes.append(sizes.astype(np.uint64))
        self._valid.append(valid)

    def _flush(self) -> None:
        if self._single:
            self._sizes.append(np.array(self._single, np.uint64))
            self._valid.append(np.ones(len(self._single), np.bool_))
            self._single = []

    def _rows(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
        """Offset, size and validity of each blob."""
        self._flush()
        sizes = np.concatenate([*self._sizes, np.empty(0, np.uint64)])
        valid = np.concatenate([*self._valid, np.empty(0, np.bool_)])
        return np.cumsum(sizes, dtype=np.uint64) - sizes, sizes, valid

    async def finish(self) -> list[BlobDescriptor]:
        """Give the file its name; returns one descriptor for each blob, in order, nulls included."""
        await self._finish()
        null = BlobDescriptor()
        return [
            BlobDescriptor(PACKED, blob_id=self._blob_id, position=offset, blob_size=size) if there else null
            for offset, size, there in zip(*(part.tolist() for part in self._rows()), strict=True)
        ]

    async def finish_array(self, field_name: str) -> pa.StructArray:
        """Give the file its name; returns the descriptors as an array whose `field` has the name ``field_name``."""
        if not isinstance(field_name, str):
            raise TypeError(f"the name of a field is a str, not {type(field_name).__name__}")
        await self._finish()
        self._field = prepared_field(field_name)
        return packed_array(self._blob_id, *self._rows())
