"""Reading data files of format 2.0 (`spec/file-2.0-and-0.1.md`, part A).

The container is that of later formats (`container`, `metadata`), except that buffers may lie anywhere.  What differs
is the columns: structs and lists own some, and the encoding of a page is a tree of array encodings
(`pilum.encoding.v2_0`).  `parse_source` turns the metadata of one column into a `ColumnSource`; a projection is
resolved to column trees once per file and schema, and kept with the file's metadata.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pilum.encoding import Range
from pilum.encoding.v2_0 import Column, ColumnSource, PageBuffers, PageEncoding, open_column
from pilum.errors import CorruptFileError, InvalidInputError, PilumError, UnsupportedError, located
from pilum.file.metadata import FileMetadata, load_metadata, relocated
from pilum.file.plan import DAMAGE
from pilum.file.tree_reader import Mapping, TreeProjection, TreeReader
from pilum.io import Bytes, Store
from pilum.proto.lazy import array_encodings_pb2
from pilum.schema import Field, Schema, column_fields

if TYPE_CHECKING:
    from pilum.file.cache import Cache

__all__ = ["FileReader20", "parse_source"]

_COLUMN_ENCODING = "lance.encodings.ColumnEncoding"
_ARRAY_ENCODING = "lance.encodings.ArrayEncoding"
_MAX_PAGES = 1 << 24
_MAX_ROWS = 1 << 60
# Column metadata up to this length is parsed once for all files that have the same.
_SHARED_BYTES = 4 << 10
_STRINGS = frozenset(("string", "binary", "large_string", "large_binary"))


class FileReader20(TreeReader):
    """One opened data file of format 2.0.

    Attributes:
        metadata: what the tail said.
    """

    __slots__ = ("metadata",)

    def __init__(
        self, store: Store, path: str, metadata: FileMetadata, schema: Schema | None, mapping: Mapping,
        cache: Cache | None, body: Bytes | None,
    ) -> None:  # fmt: skip
        super().__init__(store, path, schema, mapping, cache, body)
        self.metadata = metadata

    @classmethod
    async def open(
        cls,
        store: Store,
        path: str,
        *,
        size: int | None = None,
        schema: Schema | None = None,
        fields: Sequence[int] | None = None,
        column_indices: Sequence[int] | None = None,
        cache: Cache | None = None,
        body: Bytes | None = None,
    ) -> FileReader20:
        """Open a file of format 2.0; arguments as `FileReader.open`, errors too."""
        key = (store.uri, path)
        metadata: FileMetadata | None = cache.get(key) if cache is not None else None
        if metadata is None:
            metadata = await load_metadata(store, path, size, None, body)
            if cache is not None:
                cache.put(key, metadata, metadata.nbytes)
        return await cls.of_metadata(store, path, metadata, schema, fields, column_indices, cache, body)

    @classmethod
    async def of_metadata(
        cls,
        store: Store,
        path: str,
        metadata: FileMetadata,
        schema: Schema | None,
        fields: Sequence[int] | None,
        column_indices: Sequence[int] | None,
        cache: Cache | None,
        body: Bytes | None,
    ) -> FileReader20:
        """A reader of a file whose tail has been read."""
        if metadata.footer.version not in ((0, 3), (2, 0)):
            major, minor = metadata.footer.version
            raise UnsupportedError(f"{path}: version {major}.{minor} is not format 2.0; open_file reads it")
        if metadata.num_rows > _MAX_ROWS:
            raise CorruptFileError(located(f"a file of {metadata.num_rows} rows", path=path))
        mapping = (fields, column_indices) if fields is not None and column_indices is not None else None
        reader = cls(store, path, metadata, schema, mapping, cache, body)
        await reader.initialise()
        return reader

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        return self.metadata.num_rows

    @property
    def file_schema(self) -> Schema:
        """The schema stored in the file."""
        return self.metadata.schema

    @property
    def version(self) -> tuple[int, int]:
        """Format version as the footer has it: (0, 3), or (2, 0) for embedded batches."""
        return self.metadata.footer.version

    @property
    def _projections(self) -> dict[int, TreeProjection]:
        return self.metadata.projections

    def with_body(self, body: Bytes | None) -> FileReader20:
        """A reader of the same file that serves data from ``body``, or from the store if None."""
        if self._body is body:
            return self
        return FileReader20(
            self.store, self.path, self.metadata, self._schema, self._mapping, self._cache, body
        )

    async def read_global_buffer(self, index: int) -> bytes:
        """The bytes of a global buffer; 0 is the serialized file descriptor, users' begin at 1."""
        buffers = self.metadata.buffers
        if not 0 <= index < len(buffers):
            raise InvalidInputError(f"global buffer {index} does not exist: {self.path} has {len(buffers)}")
        (data,) = await self._fetch([buffers[index]], who="global buffer")
        return data.tobytes()

    # -- columns -----------------------------------------------------------------------------------------

    async def _resolve(self, schema: Schema) -> tuple[Column, ...]:
        metadata = self.metadata
        indices = self._indices()
        wanted = {
            indices[node.id] for top in schema.fields for node in top.walk() if indices.get(node.id, -1) >= 0
        }
        sources = await self._sources(sorted(wanted))
        # Strings of the earliest writers own a second column with their bytes.
        more = {
            number + 1
            for number, source in sources.items()
            if source.kind == "list" and number + 1 not in sources and number + 1 < metadata.num_columns
        }
        if more:
            sources |= await self._sources(sorted(more))

        def find(field_id: int, step: int) -> ColumnSource | None:
            number = indices.get(field_id, -1)
            return sources.get(number + step) if number >= 0 else None

        columns = []
        for top in schema.fields:
            if not any(indices.get(node.id, -1) >= 0 for node in top.walk()):
                raise InvalidInputError(f"{self.path} holds no column for field {top.name!r} (id {top.id})")
            try:
                columns.append(open_column(top, find, metadata.footer.size))
            except PilumError as error:
                raise relocated(error, self.path, repr(top.name)) from None
            except DAMAGE as error:
                raise self._damaged(error, top.name) from error
        return tuple(columns)

    def _indices(self) -> dict[int, int]:
        """The column of each field id."""
        if self._mapping is not None:
            return dict(zip(*self._mapping, strict=False))
        owners: Sequence[Field | None] = column_fields(self.file_schema, self.version)
        if len(owners) != self.metadata.num_columns:
            doubled = _with_string_bytes(column_fields(self.file_schema, self.version))
            if len(doubled) == self.metadata.num_columns:
                owners = doubled
        return {field.id: number for number, field in enumerate(owners) if field is not None}

    async def _sources(self, numbers: list[int]) -> dict[int, ColumnSource]:
        container = self.metadata.container
        found: dict[int, ColumnSource] = {}
        missing: list[int] = []
        for number in numbers:
            if number >= self.metadata.num_columns:
                raise CorruptFileError(
                    f"column {number} does not exist, there are {self.metadata.num_columns}"
                )
            data = container.column_bytes(number)
            if data is None:
                missing.append(number)
            else:
                found[number] = self._parse(number, data)
        if missing:
            pieces = await self._fetch([container.ranges[number] for number in missing], who="metadata")
            for number, piece in zip(missing, pieces, strict=True):
                found[number] = self._parse(number, piece.tobytes())
        return found

    def _parse(self, number: int, data: bytes) -> ColumnSource:
        parse = parse_source if len(data) <= _SHARED_BYTES else parse_source.__wrapped__
        try:
            return parse(data, number, self.metadata.footer.size)
        except PilumError as error:
            raise relocated(error, self.path, number) from error.__cause__
        except DAMAGE as error:
            damaged = CorruptFileError(f"the column metadata cannot be used: {type(error).__name__}: {error}")
            raise relocated(damaged, self.path, number) from error


def _with_string_bytes(owners: Sequence[Field]) -> list[Field | None]:
    """The columns of a file of releases 0.12 and 0.13: strings own a second one."""
    found: list[Field | None] = []
    for field in owners:
        found.append(field)
        if field.logical_type in _STRINGS:
            found.append(None)
    return found


@lru_cache(maxsize=256)
def parse_source(data: bytes, number: int, file_size: int) -> ColumnSource:
    """What a ``ColumnMetadata`` message says; the small fragments of a table share theirs.

    Args:
        data: the serialized message.
        number: of the column.
        file_size: length of the file.

    Raises:
        CorruptFileError: the message contradicts the format or points outside the file.
        UnsupportedError: a column encoding that is not known.
    """
    from google.protobuf.message import DecodeError

    from pilum.proto import container_pb2

    try:
        message = container_pb2.ColumnMetadata.FromString(data)
    except DecodeError as error:
        raise CorruptFileError(f"column metadata is not a valid message: {error}") from None
    if not message.HasField("encoding"):
        raise CorruptFileError("the column has no encoding")
    if len(message.pages) > _MAX_PAGES:
        raise CorruptFileError(f"a column of {len(message.pages)} pages")
    own = _buffers(message.buffer_offsets, message.buffer_sizes, file_size, None)
    pages = []
    for page_number, page in enumerate(message.pages):
        buffers = _buffers(page.buffer_offsets, page.buffer_sizes, file_size, page_number)
        if not page.length and _is_values(page.encoding):
            continue  # items of nothing but empty lists, and what careless writers left
        if page.encoding.WhichOneof("location") != "direct":
            raise CorruptFileError(located("the page has no inline encoding", page=page_number))
        try:
            encoding = _array_encoding(page.encoding.direct.encoding)
        except CorruptFileError as error:
            raise CorruptFileError(located(str(error), page=page_number)) from None
        pages.append(PageEncoding(page.length, PageBuffers(buffers, own), encoding))
    return ColumnSource(number, tuple(pages), len(message.pages), _is_blob(message.encoding))


def _is_values(encoding: Any) -> bool:
    """Whether a page without rows can be dropped: all but the header of a struct, which says how many there are."""
    if encoding.WhichOneof("location") != "direct":
        return True
    try:
        return bool(_array_encoding(encoding.direct.encoding).WhichOneof("array_encoding") != "struct")
    except CorruptFileError:
        return True


def _buffers(offsets: Any, sizes: Any, file_size: int, page: int | None) -> tuple[Range, ...]:
    if len(offsets) != len(sizes):
        raise CorruptFileError(located(f"{len(offsets)} buffer offsets, {len(sizes)} sizes", page=page))
    found = []
    for offset, size in zip(offsets, sizes, strict=True):
        if offset + size > file_size:
            raise CorruptFileError(
                located(
                    f"a buffer of {size} bytes leaves the file of {file_size} bytes", page=page, offset=offset
                )
            )
        found.append((offset, offset + size))
    return tuple(found)


def _unwrapped(data: bytes, expected: str) -> bytes:
    """The value of a serialized ``Any`` of an expected type."""
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import DecodeError

    try:
        wrapped = AnyMessage.FromString(data)
    except DecodeError as error:
        raise CorruptFileError(f"an encoding is not a valid message: {error}") from None
    _, slash, name = wrapped.type_url.rpartition("/")
    if not slash or name != expected:
        raise CorruptFileError(f"unexpected encoding {wrapped.type_url!r}, expected {'/' + expected!r}")
    return wrapped.value


@lru_cache(maxsize=512)
def _array_encoding(data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return array_encodings_pb2.ArrayEncoding.FromString(_unwrapped(data, _ARRAY_ENCODING))
    except DecodeError as error:
        raise CorruptFileError(f"the page encoding is not a valid message: {error}") from None


def _is_blob(encoding: Any) -> bool:
    """Whether the column holds descriptors of blobs.

    ``none`` instead of ``values`` is what the first preview of the format wrote.
    """
    location = encoding.WhichOneof("location")
    if location == "none":
        return False
    if location != "direct":
        raise CorruptFileError("the column has no inline encoding")
    return _column_encoding(encoding.direct.encoding)


@lru_cache(maxsize=64)
def _column_encoding(data: bytes) -> bool:
    from google.protobuf.message import DecodeError

    from pilum.proto import column_encoding_pb2

    try:
        message = column_encoding_pb2.ColumnEncoding.FromString(_unwrapped(data, _COLUMN_ENCODING))
    except DecodeError as error:
        raise CorruptFileError(f"the column encoding is not a valid message: {error}") from None
    kind = message.WhichOneof("column_encoding")
    if kind is None:
        raise UnsupportedError("the column has an encoding that is not known (zone maps are not read)")
    return kind == "blob"
