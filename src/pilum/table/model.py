"""The values that describe one version of a table.

Implements the information model of spec/table.md, sections 5.1, 5.3 and 5.4.  Nothing here knows protobuf,
a store or the file layout; `codec` translates, `operations` makes new values from old ones.

What pilum does not interpret is carried along unchanged: ``extra`` holds the encoded remainder of a message
(overlays, clustering, fields of later releases), row-id and version sequences and index entries stay encoded
until someone needs them.  So a commit loses nothing that a newer writer put there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pilum.errors import CorruptFileError
from pilum.schema import Schema

if TYPE_CHECKING:
    from pilum.table.dictionaries import StoredDictionary

__all__ = [
    "ARROW_ARRAY",
    "BITMAP",
    "TOMBSTONE",
    "BasePath",
    "DataFile",
    "DeletionFile",
    "Fragment",
    "IndexMetadata",
    "Manifest",
    "WriterVersion",
    "fast_constructor",
    "file_format_version",
]

T = TypeVar("T")

ARROW_ARRAY = 0
BITMAP = 1

# Entry of `DataFile.fields` whose column was superseded by another file or dropped.
TOMBSTONE = -2

# Version numbers stored with a data file -> version of the file format (section 5.3).
_FILE_FORMATS: Mapping[tuple[int, int], tuple[int, int]] = {
    (0, 0): (0, 1),
    (0, 1): (0, 1),
    (0, 2): (0, 1),
    (0, 3): (2, 0),
    (2, 0): (2, 0),
    (2, 1): (2, 1),
    (2, 2): (2, 2),
    (2, 3): (2, 3),
}


def file_format_version(stored: tuple[int, int]) -> tuple[int, int]:
    """The file format version that a data file's stored pair of numbers means.

    Raises:
        CorruptFileError: no such version.
    """
    try:
        return _FILE_FORMATS[stored]
    except KeyError:
        raise CorruptFileError(f"unknown data file version {stored[0]}.{stored[1]}") from None


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a fragment, holding some of its columns.

    Attributes:
        path: relative to ``data/`` of its base; normally just a file name.
        fields: field ids of the columns in this file; -2 marks a superseded column.
        column_indices: file column of each entry of ``fields`` (-1: none of its own); empty for 0.1.
        version: file version numbers as stored, see `file_format_version`.
        size: bytes; 0 when unknown.
        base_id: base path the file lies in; None is the table's own folder.
    """

    path: str
    fields: tuple[int, ...]
    column_indices: tuple[int, ...]
    version: tuple[int, int] = (2, 2)
    size: int = 0
    base_id: int | None = None


@dataclass(frozen=True, slots=True)
class DeletionFile:
    """The file with the deleted row offsets of a fragment (section 11).

    Attributes:
        file_type: `ARROW_ARRAY` or `BITMAP`.
        read_version: version the deletion was computed on; part of the name.
        id: random number; part of the name.
        num_deleted_rows: how many; 0 when unknown (old writers).
        base_id: base path the file lies in; None is the table's own folder.
    """

    file_type: int
    read_version: int
    id: int
    num_deleted_rows: int
    base_id: int | None = None


@dataclass(frozen=True, slots=True)
class Fragment:
    """A horizontal slice of the table.

    Attributes:
        id: unique in the history of the table; 0 in operations that leave the numbering to the commit.
        files: data files; a column lies in exactly one of them, or in none (then it is null).
        physical_rows: rows stored, including deleted ones.
        deletion_file: None when nothing is deleted.
        row_ids: encoded RowIdSequence (stable row ids only).
        created_at: encoded RowDatasetVersionSequence.
        last_updated_at: encoded RowDatasetVersionSequence.
        extra: encoded rest of the message, carried through.
        encoded: the message this value was decoded from; empty for a new or changed fragment.
    """

    id: int
    files: tuple[DataFile, ...]
    physical_rows: int
    deletion_file: DeletionFile | None = None
    row_ids: bytes | None = None
    created_at: bytes | None = None
    last_updated_at: bytes | None = None
    extra: bytes = b""
    encoded: bytes = field(default=b"", init=False, repr=False, compare=False)

    @property
    def num_rows(self) -> int:
        """Rows that are not deleted."""
        deleted = self.deletion_file
        return self.physical_rows if deleted is None else self.physical_rows - deleted.num_deleted_rows

    @property
    def num_deleted_rows(self) -> int:
        """Rows that are deleted."""
        return 0 if self.deletion_file is None else self.deletion_file.num_deleted_rows


@dataclass(frozen=True, slots=True)
class BasePath:
    """Another place where files of the table lie (section 13.4).

    Attributes:
        id: what files refer to; 0 is a valid id.
        path: URI or absolute path.
        is_dataset_root: whether the folder is laid out like a dataset (``data/``, ``_deletions/``).
        name: optional name, unique among the bases.
    """

    id: int
    path: str
    is_dataset_root: bool = False
    name: str | None = None


@dataclass(frozen=True, slots=True)
class IndexMetadata:
    """One segment of an index, as far as commits care; ``message`` is the complete encoded entry."""

    uuid: bytes
    name: str
    fields: tuple[int, ...]
    dataset_version: int
    fragment_bitmap: bytes
    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WriterVersion:
    """Which library wrote a version."""

    library: str
    version: str
    prerelease: str | None = None
    build_metadata: str | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Manifest:
    """The complete state of a table at one version.

    ``fragments`` of a manifest that was read is decoded on first use: counting or listing versions and
    reading the config do not pay for it.

    Attributes:
        version: at least 1; bit 63 marks a detached version.
        schema: columns with their field ids, and the schema metadata.
        fragments: ascending by id.
        timestamp_ns: time of the commit, nanoseconds since the epoch, UTC.
        config: table config.
        table_metadata: free metadata of the user.
        data_version: format version of the data files, such as ``(2, 2)``.
        max_fragment_id: highest id ever used in this history; None before the first fragment.
        next_row_id: next unused stable row id.
        reader_flags: feature flags for readers (see `flags`).
        writer_flags: feature flags for writers.
        base_paths: other places where files lie.
        branch: name of the branch; None is main.
        transaction_file: name below ``_transactions/``; empty when there is none.
        writer_version: library that wrote this version.
        indices: index entries, carried from version to version.
        extra: encoded rest of the message, carried through.
        dictionaries: values of dictionary fields that the manifest file holds (format 0.1).
        stored_schema: a schema and its encoded form, reused as long as ``schema`` is that very object.
        unseen: gives the ids of fragments of the table that are not among ``fragments``, while an operation is
            applied to a part of it.
        pending: decodes ``fragments``; None when that has been done.
        encoded_fragments: the messages of ``fragments``, of a manifest that was read or built from one.
        digest: tells in this process whether a file holds the bytes that this is the content of; see `has_bytes`.
    """

    version: int
    schema: Schema
    fragments: tuple[Fragment, ...] = ()
    timestamp_ns: int = 0
    config: Mapping[str, str] = field(default_factory=dict)
    table_metadata: Mapping[str, str] = field(default_factory=dict)
    data_version: tuple[int, int] = (2, 2)
    max_fragment_id: int | None = None
    next_row_id: int = 0
    reader_flags: int = 0
    writer_flags: int = 0
    base_paths: tuple[BasePath, ...] = ()
    branch: str | None = None
    transaction_file: str = ""
    writer_version: WriterVersion | None = None
    indices: tuple[IndexMetadata, ...] = ()
    extra: bytes = field(default=b"", repr=False)
    dictionaries: tuple[StoredDictionary, ...] = field(default=(), repr=False)
    stored_schema: tuple[Schema, bytes] | None = field(default=None, repr=False, compare=False)
    unseen: Callable[[], Sequence[int]] | None = field(default=None, repr=False, compare=False)
    pending: Callable[[], tuple[Fragment, ...]] | None = field(
        default=None, init=False, repr=False, compare=False
    )
    encoded_fragments: Sequence[bytes] | None = field(default=None, init=False, repr=False, compare=False)
    digest: int | None = field(default=None, init=False, repr=False, compare=False)

    def __getattr__(self, name: str) -> Any:
        # Reached only when a slot is empty, which is how `codec` leaves `fragments`.
        if name != "fragments":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        pending = self.pending
        if pending is None:  # another thread was faster
            return object.__getattribute__(self, name)
        fragments = pending()
        object.__setattr__(self, name, fragments)
        object.__setattr__(self, "pending", None)
        return fragments

    @property
    def num_rows(self) -> int:
        """Rows of the table that are not deleted."""
        return sum(fragment.num_rows for fragment in self.fragments)

    @property
    def uses_stable_row_ids(self) -> bool:
        """Whether rows keep their id when they move."""
        return bool(self.reader_flags & 2)

    def keep_fragments(self, fragments: tuple[Fragment, ...], encoded: Sequence[bytes]) -> None:
        """Take decoded fragments with their messages; only for a manifest that nobody else has yet."""
        object.__setattr__(self, "fragments", fragments)
        object.__setattr__(self, "encoded_fragments", encoded)

    def defer_fragments(self, decode: Callable[[], tuple[Fragment, ...]], encoded: Sequence[bytes]) -> None:
        """Leave the fragments encoded until they are used; only for a manifest that nobody else has yet."""
        object.__setattr__(self, "pending", decode)
        object.__setattr__(self, "encoded_fragments", encoded)
        object.__delattr__(self, "fragments")

    def note_bytes(self, data: bytes) -> None:
        """Remember the bytes of the file that this is the content of, as 64 bits of a keyed hash."""
        object.__setattr__(self, "digest", hash(data))

    def has_bytes(self, data: bytes) -> bool:
        """Whether these are the noted bytes; in another process the answer is no."""
        return self.digest == hash(data)

    def fragment_by_id(self) -> dict[int, Fragment]:
        """Fragments by their id."""
        return {fragment.id: fragment for fragment in self.fragments}


def fast_constructor(cls: type[T]) -> Callable[..., T]:
    """A constructor for a frozen slots dataclass that takes every field in order and is several times faster.

    A frozen ``__init__`` goes through ``object.__setattr__`` for every field (1 µs for eight of them).  This
    one fills an object of an ordinary class with the same slots and then changes its class (0.25 µs), which
    is what makes decoding tens of thousands of fragments bearable.
    """
    names = [one.name for one in fields(cls)]  # type: ignore[arg-type]
    twin: Any = make_dataclass(f"_{cls.__name__}Twin", names, slots=True)

    def construct(*values: Any) -> T:
        value: Any = twin(*values)
        value.__class__ = cls
        return value  # type: ignore[no-any-return]

    return construct
