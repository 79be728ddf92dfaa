"""Opening a data file of any format: look at the version, return the reader that knows it.

A file whose metadata is in the cache is known by what was cached; otherwise its tail is read and says the version, so
that opening costs the same as with the right reader at once.  Only files of format 0.1 cost a second read of their
tail when nobody knows beforehand; tables do, and pass ``version``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pilum.file import v0_1, v2_0
from pilum.file.container import LegacyFileError
from pilum.file.late import prepare
from pilum.file.metadata import FileMetadata, keep_bytes, load_metadata
from pilum.file.reader import FileReader
from pilum.io import Bytes, Store
from pilum.schema import Schema

if TYPE_CHECKING:
    from pilum.file.cache import Cache
    from pilum.file.generic import GenericReader

__all__ = ["open_file"]

_LEGACY = {(0, 0), (0, 1), (0, 2)}


async def open_file(
    store: Store,
    path: str,
    *,
    size: int | None = None,
    schema: Schema | None = None,
    fields: Sequence[int] | None = None,
    column_indices: Sequence[int] | None = None,
    cache: Cache | None = None,
    whole: bool = False,
    body: Bytes | None = None,
    version: tuple[int, int] | None = None,
) -> GenericReader:
    """Open a file of any format; the metadata I/O happens in this await.

    Args:
        store: where the file lies.
        path: its key.
        size: its length in bytes, if known.
        schema: what is read by default; the file's own schema if None.
        fields, column_indices: field ids and the columns that hold them, as the manifest lists them; if None the
            file's schema says.
        cache: of the session; nothing is kept if None.
        whole: fetch the whole file in one request unless its metadata is cached.
        body: the bytes of the whole file, when another reader has them.
        version: the pair of numbers that the manifest has for the file; a hint that saves a read for 0.1.

    Raises:
        CorruptFileError: the file contradicts the format.
        UnsupportedError: a file version that is not read.
        NotFoundError: there is no such file.

    Example:
        >>> import asyncio, pyarrow as pa
        >>> from pilum.file import FileWriter
        >>> from pilum.io import MemoryStore
        >>> from pilum.schema import Schema
        >>> async def main() -> pa.RecordBatch:
        ...     rows, store = pa.record_batch({"a": [1, 2, 3]}), MemoryStore("doc-open")
        ...     async with await FileWriter.create(store, "a.lance", Schema.from_arrow(rows.schema)) as writer:
        ...         await writer.write(rows)
        ...     return await (await open_file(store, "a.lance")).read_batch(range(1, 3))
        >>> asyncio.run(main()).to_pydict()
        {'a': [2, 3]}
    """
    prepare()
    key = (store.uri, path)
    metadata: Any = cache.get(key) if cache is not None else None
    if metadata is None:

        async def load() -> Any:
            nonlocal body
            if whole and size and body is None:
                body = await store.get(path, 0, size, who="file")
            if version in _LEGACY:
                return None
            wanted = None if schema is None else len(schema.leaves())
            try:
                found = await load_metadata(store, path, size, wanted, body)
            except LegacyFileError:
                return None
            if cache is not None:
                keep_bytes(cache, store, path, body)
                cache.put(key, found, found.nbytes)
            return found

        if cache is None or not store.suspends or body is not None:
            metadata = await load()
        else:
            metadata = await cache.in_flight.once(key, load)
    if not isinstance(metadata, FileMetadata):
        return await v0_1.FileReader01.open(
            store, path, size=size, schema=schema, fields=fields, cache=cache, body=body
        )
    if metadata.footer.version >= (2, 1):
        return await FileReader.of_metadata(
            store, path, metadata, schema, fields, column_indices, cache, body
        )
    return await v2_0.FileReader20.of_metadata(
        store, path, metadata, schema, fields, column_indices, cache, body
    )
