"""Field and Schema: the tree of columns as the format stores it.

An Arrow schema plus what Arrow does not have: field ids that survive renames, and logical type
strings (`logical.py`).  Both are frozen values; what is derived from them (Arrow type, leaves,
lookup by id) is computed once and kept.  Specification: file-container-and-structure.md
section 3, table.md sections 5.2 and 10.

On the wire a schema is a flat list in pre-order whose entries name their parent::

    id 0 "a" parent -1 int32          a: int32
    id 1 "s" parent -1 struct         s: struct<x: int64, y: list<item: string>>
    id 2 "x" parent  1 int64
    id 3 "y" parent  1 list
    id 4 "item" parent 3 string

Extension types are storage types plus the two ``ARROW:extension:*`` metadata keys, here and in
`to_arrow`.  Files repeat their schema: `Schema.from_proto_bytes` and `parse_file_descriptor`
parse equal bytes once.  Must not know: files, pages, columns (`columns.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum.errors import CorruptFileError, InvalidInputError
from pilum.schema.extensions import extension_parameters
from pilum.schema.logical import (
    EXTENSION_METADATA,
    EXTENSION_NAME,
    arrow_type_of,
    leaf_type_of,
    logical_type_of,
)
from pilum.schema.width import bytes_per_row

if TYPE_CHECKING:
    from pilum.proto import file_pb2

__all__ = ["BLOB_KEY", "BLOB_V2", "FIELD_ID_KEY", "PACKED_KEY", "Field", "Schema", "parse_file_descriptor"]

FIELD_ID_KEY = "lance:field_id"
BLOB_KEY = "lance-encoding:blob"
BLOB_V2 = "lance.blob.v2"
PACKED_KEY = "lance-encoding:packed"
_PACKED_KEYS = (PACKED_KEY, "packed")
_PRIMARY_KEY = "lance-schema:unenforced-primary-key"
_PRIMARY_KEY_POSITION = "lance-schema:unenforced-primary-key:position"
_CLUSTERING_KEY_POSITION = "lance-schema:unenforced-clustering-key:position"
_NO_METADATA: dict[str, str] = {}
_MAX_PROJECTIONS = 256


@dataclass(frozen=True, slots=True)
class Field:
    """One node of the schema tree.

    Attributes:
        id: unique in the schema, 0 or larger; stable across renames.
        name: own name, not a path.
        logical_type: storage type as a string, see `pilum.schema.logical`.
        nullable: whether nulls are allowed.
        metadata: Arrow field metadata, including the ``ARROW:extension:*`` keys.
        children: struct members, list item, map entries.
        parent_id: id of the parent, -1 at top level.
        arrow_type: Arrow storage type, computed once.
    """

    id: int
    name: str
    logical_type: str
    nullable: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    children: tuple[Field, ...] = ()
    parent_id: int = -1
    arrow_type: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Wide files have thousands of fields: leaves skip the list and the dispatch.
        if self.children:
            arrow_type = arrow_type_of(self.logical_type, [child.to_arrow() for child in self.children])
        else:
            arrow_type = leaf_type_of(self.logical_type)
        object.__setattr__(self, "arrow_type", arrow_type)

    def __reduce__(self) -> tuple[Any, ...]:
        return Field, (
            self.id,
            self.name,
            self.logical_type,
            self.nullable,
            self.metadata,
            self.children,
            self.parent_id,
        )

    @property
    def is_packed(self) -> bool:
        """Whether the field is a struct stored in one column (metadata ``packed``)."""
        metadata = self.metadata
        return (
            bool(metadata)
            and self.logical_type == "struct"
            and any(metadata.get(key, "").lower() == "true" for key in _PACKED_KEYS)
        )

    @property
    def is_blob(self) -> bool:
        """Whether the values are kept out of line (metadata key, blob v2 extension or type ``blob``)."""
        metadata = self.metadata
        return self.logical_type == "blob" or (
            bool(metadata) and (BLOB_KEY in metadata or metadata.get(EXTENSION_NAME) == BLOB_V2)
        )

    @property
    def is_leaf(self) -> bool:
        """Whether the field owns a column in format 2.1 and later.

        True without children, and for packed structs and blobs, whose children have no column.
        """
        return not self.children or self.is_packed or self.is_blob

    @property
    def extension_name(self) -> str:
        """Arrow extension name, empty if the field is not an extension type."""
        return self.metadata.get(EXTENSION_NAME, "")

    def to_arrow(self) -> Any:
        """`pa.Field` with the storage type and the metadata."""
        # Arrow refuses null columns that are not nullable; the format does not mind.
        nullable = self.nullable or self.logical_type == "null"
        return pa.field(self.name, self.arrow_type, nullable, dict(self.metadata) or None)

    def walk(self) -> Iterator[Field]:
        """This field and its descendants, pre-order."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> Iterator[Field]:
        """The descendants (or this field) that own a column in 2.1+, pre-order."""
        if self.is_leaf:
            yield self
        else:
            for child in self.children:
                yield from child.leaves()

    def with_children(self, children: tuple[Field, ...]) -> Field:
        """The same field with other children."""
        return Field(
            self.id, self.name, self.logical_type, self.nullable, self.metadata, children, self.parent_id
        )


@dataclass(frozen=True, slots=True)
class Schema:
    """The top-level fields and the schema metadata."""

    fields: tuple[Field, ...]
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    _derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Schema, (self.fields, self.metadata)

    def memo(self, name: str) -> dict[Any, Any]:
        """A dictionary for what others derive from the schema; it lives as long as the schema."""
        found: dict[Any, Any] = self._derived.setdefault(name, {})
        return found

    # ------------------------------------------------------------ Arrow

    @classmethod
    def from_arrow(cls, schema: Any, *, first_id: int = 0) -> Schema:
        """Schema of an Arrow schema, with ids counted up in pre-order.

        Args:
            schema: a `pa.Schema`.
            first_id: id of the first field.  The field metadata key ``lance:field_id`` overrides
                the id of one field and is removed.

        Raises:
            InvalidInputError: a type that cannot be stored, a duplicate or dotted top-level name.
        """
        check_names(schema.names)
        counter = _Counter(first_id)
        fields = tuple(_field_from_arrow(arrow_field, counter, -1) for arrow_field in schema)
        if counter.explicit:
            _check_ids(fields)
        return cls(fields, _text_metadata(schema.metadata, "the schema"))

    def to_arrow(self) -> Any:
        """`pa.Schema` of storage types; computed once."""
        arrow = self._derived.get("arrow")
        if arrow is None:
            arrow = pa.schema([f.to_arrow() for f in self.fields], metadata=dict(self.metadata) or None)
            self._derived["arrow"] = arrow
        return arrow

    # ------------------------------------------------------------ protobuf

    @classmethod
    def from_proto(
        cls, fields: Iterable[file_pb2.Field], metadata: Mapping[str, str] | Mapping[str, bytes] | None = None
    ) -> Schema:
        """Schema of the flat field list of a file or manifest.

        Raises:
            CorruptFileError: an unknown parent, a duplicate or negative id, text that is not UTF-8.
            UnsupportedError: a logical type that is not known.
        """
        return _shown(cls(_tree(fields), _proto_metadata(metadata) if metadata else _NO_METADATA))

    @staticmethod
    def from_proto_bytes(data: bytes) -> Schema:
        """Schema of a serialized ``lance.file.Schema`` message.

        Equal bytes give the same object (an LRU of 64 schemas, process-wide).
        """
        return _shown(_schema_of_bytes(data))

    def to_proto(self) -> list[file_pb2.Field]:
        """The flat pre-order field list."""
        return [_field_to_proto(f) for f in self.walk()]

    def to_proto_message(self) -> file_pb2.Schema:
        """The ``lance.file.Schema`` message, with metadata."""
        from pilum.proto import file_pb2

        metadata = {key: value.encode() for key, value in self.metadata.items()}
        return file_pb2.Schema(fields=self.to_proto(), metadata=metadata)

    # ------------------------------------------------------------ look-up

    @property
    def names(self) -> list[str]:
        """Names of the top-level fields."""
        return [f.name for f in self.fields]

    @property
    def max_field_id(self) -> int:
        """The largest id of the tree, -1 without fields."""
        return max((f.id for f in self.walk()), default=-1)

    def walk(self) -> Iterator[Field]:
        """All fields, pre-order."""
        for top in self.fields:
            yield from top.walk()

    def leaves(self) -> tuple[Field, ...]:
        """The fields that own a column in format 2.1+, pre-order; computed once."""
        leaves: tuple[Field, ...] | None = self._derived.get("leaves")
        if leaves is None:
            leaves = tuple(leaf for top in self.fields for leaf in top.leaves())
            self._derived["leaves"] = leaves
        return leaves

    @property
    def leaf_ids(self) -> tuple[int, ...]:
        """Ids of `leaves`; computed once."""
        ids: tuple[int, ...] | None = self._derived.get("leaf_ids")
        if ids is None:
            ids = self._derived["leaf_ids"] = tuple(leaf.id for leaf in self.leaves())
        return ids

    @property
    def row_bytes(self) -> float:
        """Estimated decoded bytes per row, see `bytes_per_row`; computed once."""
        size: float | None = self._derived.get("row_bytes")
        if size is None:
            size = self._derived["row_bytes"] = bytes_per_row(self.to_arrow())
        return size

    def field(self, path: str) -> Field:
        """The field at ``path``: a top-level name, or names joined by dots.

        Names that contain dots are quoted with backticks: ``a.`b.c```.

        Raises:
            InvalidInputError: no such field.
        """
        tops = self._by_name()
        found = tops.get(path)
        if found is not None:
            return found
        current: Mapping[str, Field] = tops
        for name in split_path(path):
            found = current.get(name)
            if found is None:
                raise InvalidInputError(
                    f"no column {path!r}; the columns are {', '.join(current) or '(none)'}"
                )
            current = {child.name: child for child in found.children}
        assert found is not None  # split_path returns at least one name
        return found

    def field_by_id(self, field_id: int) -> Field:
        """The field with this id, at any depth.

        Raises:
            InvalidInputError: no such id.
        """
        by_id: dict[int, Field] | None = self._derived.get("by_id")
        if by_id is None:
            by_id = {f.id: f for f in self.walk()}
            self._derived["by_id"] = by_id
        try:
            return by_id[field_id]
        except KeyError:
            raise InvalidInputError(f"no field with id {field_id} in the schema") from None

    def project(self, paths: Sequence[str]) -> Schema:
        """The schema with only the fields at ``paths``, ids kept.

        Top-level fields come in the order of ``paths``; a path into a struct keeps the struct
        with that member only, and several paths into one struct are merged, members in the order
        of the schema.  Repeated paths count once.

        Raises:
            InvalidInputError: a path that does not exist.
        """
        key = tuple(paths)
        if key == tuple(f.name for f in self.fields):
            return self
        # The same projection is the same object, so that readers may keep what they derived from it.
        known: dict[tuple[str, ...], Schema] = self._derived.setdefault("projections", {})
        found = known.get(key)
        if found is None:
            if len(known) >= _MAX_PROJECTIONS:
                known.clear()
            found = known[key] = self._project(key)
        return found

    def _project(self, paths: tuple[str, ...]) -> Schema:
        tops = self._by_name()
        wanted: dict[str, set[int]] = {}
        for path in paths:
            top = path if path in tops else split_path(path)[0]
            wanted.setdefault(top, set()).add(self.field(path).id)
        kept = tuple(kept for name, ids in wanted.items() if (kept := _prune(tops[name], ids)) is not None)
        return Schema(kept, self.metadata)

    def _by_name(self) -> dict[str, Field]:
        by_name: dict[str, Field] | None = self._derived.get("by_name")
        if by_name is None:
            by_name = {f.name: f for f in self.fields}
            self._derived["by_name"] = by_name
        return by_name


def split_path(path: str) -> list[str]:
    """The names of a dotted path; backticks quote a name, a doubled backtick is a literal one."""
    if "`" not in path:
        return path.split(".")
    names: list[str] = []
    position = 0
    while True:
        if path.startswith("`", position):
            end = position + 1
            while True:
                end = path.find("`", end)
                if end < 0:
                    raise InvalidInputError(f"column path {path!r} has an unclosed backtick")
                if not path.startswith("``", end):
                    break
                end += 2
            names.append(path[position + 1 : end].replace("``", "`"))
            position = end + 1
            if position < len(path) and path[position] != ".":
                raise InvalidInputError(f"column path {path!r}: expected a dot after a quoted name")
        else:
            end = path.find(".", position)
            end = len(path) if end < 0 else end
            names.append(path[position:end])
            position = end
        if position >= len(path):
            return names
        position += 1


def check_names(names: Sequence[str]) -> None:
    """Top-level names must be unique and free of dots."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInputError(f"column name {name!r} appears more than once")
        if "." in name:
            raise InvalidInputError(f"column name {name!r} contains a dot; top-level names may not")
        seen.add(name)


# ---------------------------------------------------------------- building from Arrow


class _Counter:
    """Ids in pre-order."""

    __slots__ = ("explicit", "next_id")

    def __init__(self, first_id: int) -> None:
        self.next_id = first_id
        self.explicit = False

    def take(self, metadata: dict[str, str], name: str) -> int:
        if FIELD_ID_KEY not in metadata:
            self.next_id += 1
            return self.next_id - 1
        text = metadata.pop(FIELD_ID_KEY)
        try:
            given = int(text)
        except ValueError:
            given = -1
        if not 0 <= given < 2**31:
            raise InvalidInputError(
                f"field {name!r}: {FIELD_ID_KEY}={text!r} is not a field id (0 or larger)"
            )
        self.explicit = True
        self.next_id = max(self.next_id, given + 1)
        return given


def _field_from_arrow(arrow_field: Any, counter: _Counter, parent_id: int) -> Field:
    name = arrow_field.name
    arrow_type = arrow_field.type
    metadata = dict(_text_metadata(arrow_field.metadata, f"field {name!r}"))
    if isinstance(arrow_type, pa.BaseExtensionType):
        metadata[EXTENSION_NAME] = arrow_type.extension_name
        metadata[EXTENSION_METADATA] = _extension_payload(arrow_type, name)
        arrow_type = arrow_type.storage_type
    try:
        logical = logical_type_of(arrow_type)
    except InvalidInputError as error:
        raise InvalidInputError(f"field {name!r}: {error}") from None
    if metadata.get(EXTENSION_NAME) in ("arrow.json", "lance.json"):
        metadata[EXTENSION_NAME] = "lance.json"
        logical = "json"
    field_id = counter.take(metadata, name)
    children = tuple(_field_from_arrow(child, counter, field_id) for child in _child_fields(arrow_type))
    return Field(field_id, name, logical, arrow_field.nullable, metadata or _NO_METADATA, children, parent_id)


def _child_fields(arrow_type: Any) -> list[Any]:
    types = pa.types
    if types.is_struct(arrow_type):
        return list(arrow_type)
    if types.is_map(arrow_type):
        # Arrow hides the entries struct; the format stores it.
        entries = pa.struct([arrow_type.key_field, arrow_type.item_field])
        return [pa.field("entries", entries, nullable=False)]
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        return [arrow_type.value_field]
    if types.is_fixed_size_list(arrow_type) and types.is_struct(arrow_type.value_type):
        return [arrow_type.value_field]
    return []


def _extension_payload(arrow_type: Any, name: str) -> str:
    try:
        return extension_parameters(arrow_type).decode()
    except UnicodeDecodeError:
        raise InvalidInputError(
            f"field {name!r}: the parameters of extension type {arrow_type.extension_name} are not UTF-8"
        ) from None


def _text_metadata(metadata: Mapping[bytes, bytes] | None, where: str) -> dict[str, str]:
    if not metadata:
        return _NO_METADATA
    try:
        return {key.decode(): value.decode() for key, value in metadata.items()}
    except UnicodeDecodeError:
        raise InvalidInputError(f"metadata of {where} is not UTF-8; the format stores text only") from None


def _check_ids(fields: Iterable[Field]) -> None:
    seen: set[int] = set()
    for top in fields:
        for node in top.walk():
            if node.id in seen:
                raise InvalidInputError(f"field id {node.id} is used twice (field {node.name!r})")
            seen.add(node.id)


# ---------------------------------------------------------------- protobuf


@lru_cache(maxsize=64)
def _schema_of_bytes(data: bytes) -> Schema:
    from google.protobuf.message import DecodeError

    from pilum.proto import file_pb2

    try:
        message = file_pb2.Schema.FromString(data)
    except DecodeError as error:
        raise CorruptFileError(f"the schema is not a valid message: {error}") from None
    return Schema(
        _tree(message.fields), _proto_metadata(message.metadata) if message.metadata else _NO_METADATA
    )


def _shown(schema: Schema) -> Schema:
    """A schema that is none of a file, and so has no hidden columns."""
    for one in schema.fields:
        if one.id < 0:
            raise CorruptFileError(f"field {one.name!r} has id {one.id}; ids must be 0 or larger")
    return schema


@lru_cache(maxsize=256)
def parse_file_descriptor(data: bytes) -> tuple[Schema, int]:
    """Schema and row count of global buffer 0 (a serialized ``FileDescriptor``).

    Files of one table repeat their schema, so equal bytes are parsed once, and files that differ
    only in their row count share one `Schema`.

    Raises:
        CorruptFileError, UnsupportedError: as `Schema.from_proto`.
    """
    from google.protobuf.message import DecodeError

    from pilum.proto import file_pb2

    try:
        message = file_pb2.FileDescriptor.FromString(data)
    except DecodeError as error:
        raise CorruptFileError(f"the file descriptor is not a valid message: {error}") from None
    # Deterministic, or equal metadata maps could serialize in different orders.
    return _schema_of_bytes(message.schema.SerializeToString(deterministic=True)), message.length


def _tree(messages: Iterable[file_pb2.Field]) -> tuple[Field, ...]:
    top: list[_Node] = []
    by_id: dict[int, _Node] = {}
    blob: _Node | None = None
    flat = True
    for message in messages:
        node: _Node = (message, [])
        field_id = message.id
        parent_id = message.parent_id
        # Files may have columns that the schema of their table does not show (table.md, section 12.6).
        if field_id < 0 and not -5 <= field_id <= -3:
            # The descriptor members of a blob v2 column carry no ids of their own in file schemas
            # (file-container-and-structure.md section 8, 13): they belong to the struct before them.
            if blob is None or field_id != -1 or parent_id != -1:
                raise CorruptFileError(f"field {message.name!r} has id {field_id}; ids must be 0 or larger")
            blob[1].append(node)
            flat = False
            continue
        if field_id in by_id:
            raise CorruptFileError(
                f"field id {field_id} is used twice in the schema (field {message.name!r})"
            )
        if parent_id == -1:
            top.append(node)
        else:
            parent = by_id.get(parent_id)
            if parent is None:
                raise CorruptFileError(
                    f"field {message.name!r} names parent {parent_id}, which does not precede it"
                )
            parent[1].append(node)
            flat = False
        blob = node if message.logical_type == "struct" and _is_blob_v2(message) else None
        by_id[field_id] = node
    if flat:
        return tuple([_build_leaf(message) for message, _ in top])
    return tuple(_build(node, 0) for node in top)


_Node = tuple["file_pb2.Field", list[Any]]
# Deeper than any real schema, far below the interpreter's recursion limit.
_MAX_DEPTH = 128


def _build_leaf(message: file_pb2.Field) -> Field:
    return Field(
        message.id,
        message.name,
        message.logical_type,
        message.nullable,
        _metadata_of(message),
        (),
        message.parent_id,
    )


def _build(node: _Node, depth: int) -> Field:
    message, nodes = node
    if not nodes:
        return _build_leaf(message)
    if depth >= _MAX_DEPTH:
        raise CorruptFileError(f"the schema is nested more than {_MAX_DEPTH} levels deep")
    children = tuple(_build(child, depth + 1) for child in nodes)
    metadata = _metadata_of(message)
    return Field(
        message.id,
        message.name,
        message.logical_type,
        message.nullable,
        metadata,
        children,
        message.parent_id,
    )


def _is_blob_v2(message: file_pb2.Field) -> bool:
    metadata = message.metadata
    # Indexing a protobuf map adds the key, so ask first.
    return (
        BLOB_KEY in metadata
        or message.extension_name == BLOB_V2
        or (EXTENSION_NAME in metadata and metadata[EXTENSION_NAME] == BLOB_V2.encode())
    )


def _metadata_of(message: file_pb2.Field) -> Mapping[str, str]:
    stored = message.metadata
    metadata = _proto_metadata(stored) if stored else {}
    if message.extension_name:
        metadata[EXTENSION_NAME] = message.extension_name
    if message.unenforced_primary_key and not (_PRIMARY_KEY in metadata or _PRIMARY_KEY_POSITION in metadata):
        metadata[_PRIMARY_KEY] = "true"
        if message.unenforced_primary_key_position:
            metadata[_PRIMARY_KEY_POSITION] = str(message.unenforced_primary_key_position)
    return metadata or _NO_METADATA


def _proto_metadata(metadata: Mapping[str, Any]) -> dict[str, str]:
    try:
        return {k: v if isinstance(v, str) else v.decode() for k, v in metadata.items()}
    except UnicodeDecodeError:
        raise CorruptFileError("schema metadata is not UTF-8") from None


_VARIABLE_WIDTH = frozenset(("string", "large_string", "binary", "large_binary", "json", "blob"))


def _field_to_proto(node: Field) -> file_pb2.Field:
    from pilum.proto import file_pb2

    message = file_pb2.Field(
        name=node.name,
        id=node.id,
        parent_id=node.parent_id,
        logical_type=node.logical_type,
        nullable=node.nullable,
    )
    logical = node.logical_type
    if logical in _VARIABLE_WIDTH:
        message.encoding = file_pb2.Field.VAR_BINARY
    elif logical.startswith("dict:"):
        message.encoding = file_pb2.Field.DICTIONARY
        message.dictionary.SetInParent()
    elif logical not in ("struct", "null"):
        message.encoding = file_pb2.Field.PLAIN
    metadata = node.metadata
    if metadata:
        for key, value in metadata.items():
            message.metadata[key] = value.encode()
        message.extension_name = metadata.get(EXTENSION_NAME, "")
        position = _position(metadata, _PRIMARY_KEY_POSITION)
        if position or metadata.get(_PRIMARY_KEY, "").lower() in ("true", "1", "yes"):
            message.unenforced_primary_key = True
            message.unenforced_primary_key_position = position
        message.unenforced_clustering_key_position = _position(metadata, _CLUSTERING_KEY_POSITION)
    return message


def _position(metadata: Mapping[str, str], key: str) -> int:
    text = metadata.get(key, "0")
    if not text.isdigit() or int(text) >= 2**32:
        raise InvalidInputError(f"field metadata {key}={text!r} is not a position (1 or larger)")
    return int(text)


# ---------------------------------------------------------------- projecting


def _prune(node: Field, ids: set[int]) -> Field | None:
    """``node`` with only the wanted descendants; None when it holds none."""
    if node.id in ids:
        return node
    if node.is_leaf:
        # members of a packed struct share one column, so it is read whole
        return node if any(member.id in ids for member in node.walk()) else None
    kept = tuple(kept for child in node.children if (kept := _prune(child, ids)) is not None)
    if not kept:
        return None
    # A map stays whole: its entries need both members.
    return node if node.logical_type == "map" else node.with_children(kept)
