"""A fragment as a value that users hold, send and commit (spec/api.md, section 6).

`FragmentMetadata` describes a fragment without opening it: which data files, how many rows, what is deleted.
Writers that prepare files elsewhere send it as JSON, and whoever commits puts it into a `LanceOperation`.
The values here are mutable and loosely typed, as users of Lance know them; `fragment_of` and `metadata_of`
translate to and from the frozen values of the table room, which check what they are given.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.table import DataFile as StoredFile
from pilum.table import DeletionFile as StoredDeletions
from pilum.table import Fragment, decode_row_ids, encode_row_ids
from pilum.table import RowIdSequence as StoredRowIds
from pilum.table.deletions import deletion_path
from pilum.table.model import ARROW_ARRAY, BITMAP

__all__ = [
    "DataFile",
    "DeletionFile",
    "FragmentMetadata",
    "RowDatasetVersionMeta",
    "RowIdMeta",
    "RowIdSequence",
    "data_file_of",
    "fragment_of",
    "fragments_of",
    "metadata_of",
    "stored_file_of",
]

_FILE_TYPES = {ARROW_ARRAY: "array", BITMAP: "bitmap"}
_FILE_TYPE_NUMBERS = {name: number for number, name in _FILE_TYPES.items()}


class _Path(str):
    """A path that may still be called, as it had to be in old releases."""

    __slots__ = ()

    def __call__(self) -> str:
        warnings.warn("DataFile.path() is deprecated, use DataFile.path", DeprecationWarning, stacklevel=2)
        return str(self)


@dataclass
class DataFile:
    """One data file of a fragment.

    Attributes:
        path: relative to the ``data`` folder.
        fields: ids of the fields it holds; -2 marks a column that another file took over.
        column_indices: column of the file for each field; empty for format 0.1.
        file_major_version, file_minor_version: version numbers as stored with the file.
        file_size_bytes: size, None when unknown.
        base_id: base path the file lies in, None for the dataset itself.
    """

    path: str
    fields: list[int]
    column_indices: list[int] = field(default_factory=list)
    file_major_version: int = 0
    file_minor_version: int = 0
    file_size_bytes: int | None = None
    base_id: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.path = _Path(self.path)
        self.column_indices = list(self.column_indices or ())

    def field_ids(self) -> list[int]:
        """Deprecated: the same as ``fields``."""
        warnings.warn("DataFile.field_ids is deprecated, use fields", DeprecationWarning, stacklevel=2)
        return self.fields

    @classmethod
    def create(cls, dataset: Any, path: str, *, base_id: int | None = None) -> DataFile:
        """Describe a file that lies in the ``data`` folder of a dataset already.

        Args:
            dataset: the `LanceDataset`.
            path: name of the file, relative to its ``data`` folder.
            base_id: base path the file lies in.

        Raises:
            NotFoundError: there is no such file.
            InvalidInputError: it holds a column that the dataset does not have.
        """
        described: DataFile = dataset.describe_data_file(path, base_id=base_id)
        return described


@dataclass
class DeletionFile:
    """The file that lists the deleted rows of a fragment.

    Attributes:
        read_version: version the deletion was computed on.
        id: random number.
        file_type: ``"array"`` or ``"bitmap"``.
        num_deleted_rows: rows it lists.
        base_id: base path it lies in, None for the dataset itself.
    """

    read_version: int
    id: int
    file_type: str
    num_deleted_rows: int
    base_id: int | None = None

    def __post_init__(self) -> None:
        if self.file_type not in _FILE_TYPE_NUMBERS:
            raise InvalidInputError(f"a deletion file is 'array' or 'bitmap', not {self.file_type!r}")

    def path(self, fragment_id: int, base_uri: str | None = None) -> str:
        """Where the file lies, below ``base_uri`` when that is given."""
        path = deletion_path(fragment_id, _stored_deletions(self))
        return path if base_uri is None else f"{base_uri.rstrip('/')}/{path}"

    def asdict(self) -> dict[str, Any]:
        """The values by their names."""
        return {
            "read_version": self.read_version,
            "id": self.id,
            "file_type": self.file_type,
            "num_deleted_rows": self.num_deleted_rows,
            "base_id": self.base_id,
        }

    def json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.asdict(), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> DeletionFile:
        """What `json` returned, as a value again."""
        found: DeletionFile = _parsed(lambda: DeletionFile(**json.loads(text)), "a deletion file")
        return found

    def __repr__(self) -> str:
        return f"DeletionFile(type={self.file_type!r}, num_deleted_rows={self.num_deleted_rows})"


@dataclass(frozen=True)
class _Inline:
    """Encoded numbers of the rows of a fragment, stored within the manifest."""

    data: bytes = field(repr=False)

    def asdict(self) -> dict[str, list[int]]:
        """The encoded bytes under the name of where they are stored."""
        return {self._name(): list(self.data)}

    def json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.asdict(), separators=(",", ":"))

    @classmethod
    def _name(cls) -> str:
        return "inline"

    @classmethod
    def _of(cls, values: Any) -> Any:
        def build() -> Any:
            ((kind, data),) = values.items()
            if kind.lower() != "inline":
                raise UnsupportedError(f"row ids that are stored {kind!r} are not supported")
            return cls(bytes(data))

        return _parsed(build, cls.__name__)


class RowIdMeta(_Inline):
    """The stable row ids of a fragment, encoded; see `RowIdSequence`."""

    @classmethod
    def _name(cls) -> str:
        return "Inline"

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RowIdMeta:
        """What `asdict` returned, as a value again."""
        found: RowIdMeta = RowIdMeta._of(values)
        return found

    @staticmethod
    def from_json(text: str) -> RowIdMeta:
        """What `json` returned, as a value again."""
        return RowIdMeta.from_dict(_parsed(lambda: json.loads(text), "row ids"))


class RowDatasetVersionMeta(_Inline):
    """The versions that created or last changed the rows of a fragment, encoded."""

    @staticmethod
    def from_json(text: str) -> RowDatasetVersionMeta:
        """What `json` returned, as a value again."""
        found: RowDatasetVersionMeta = RowDatasetVersionMeta._of(
            _parsed(lambda: json.loads(text), "versions")
        )
        return found


class RowIdSequence:
    """The stable row ids of a fragment, in the order of its rows.

    Args:
        row_ids: the ids, unsigned 64-bit numbers.
    """

    def __init__(self, row_ids: Any) -> None:
        arrays.prepare()  # anything that Arrow makes numbers of
        ids = np.asarray(pa.array(row_ids, pa.uint64()).to_numpy(zero_copy_only=False), dtype=np.uint64)
        self._stored = StoredRowIds.of_array(ids)

    def __len__(self) -> int:
        return len(self._stored)

    def __iter__(self) -> Iterator[int]:
        return iter(self._stored.to_array().tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowIdSequence) and bool(
            np.array_equal(self._stored.to_array(), other._stored.to_array())
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RowIdSequence({self._stored.to_array().tolist()})"

    def to_pyarrow(self) -> pa.Array:
        """The ids as an array of unsigned 64-bit integers."""
        return arrays.from_numpy(self._stored.to_array(), pa.uint64())

    def to_inline_metadata(self) -> RowIdMeta:
        """The ids as a fragment carries them."""
        return RowIdMeta(encode_row_ids(self._stored))

    @staticmethod
    def from_inline_metadata(metadata: RowIdMeta) -> RowIdSequence:
        """The ids that a fragment carries."""
        return RowIdSequence(decode_row_ids(metadata.data, "row ids").to_array())


@dataclass
class FragmentMetadata:
    """A fragment: its data files and what is known about its rows.

    Attributes:
        id: number of the fragment; 0 in an operation that leaves the numbering to the commit.
        files: its data files.
        physical_rows: rows in the files, deleted ones included.
        deletion_file: what is deleted, None when nothing is.
        row_id_meta: stable row ids.
        created_at_version_meta, last_updated_at_version_meta: versions of the rows (with stable row ids).
        overlays: always empty; data overlays are not supported.
    """

    id: int
    files: list[DataFile]
    physical_rows: int
    deletion_file: DeletionFile | None = None
    row_id_meta: RowIdMeta | None = None
    created_at_version_meta: RowDatasetVersionMeta | None = None
    last_updated_at_version_meta: RowDatasetVersionMeta | None = None
    overlays: list[Any] = field(default_factory=list)
    # What newer writers stored with the fragment: carried through, so that a commit does not lose it.
    _extra: bytes = field(default=b"", repr=False, compare=False)

    @property
    def num_deletions(self) -> int:
        """Number of deleted rows."""
        return 0 if self.deletion_file is None else self.deletion_file.num_deleted_rows

    @property
    def num_rows(self) -> int:
        """Number of rows that are not deleted."""
        return self.physical_rows - self.num_deletions

    def data_files(self) -> list[DataFile]:
        """Deprecated: the same as ``files``."""
        warnings.warn(
            "FragmentMetadata.data_files is deprecated, use files", DeprecationWarning, stacklevel=2
        )
        return self.files

    def to_json(self) -> dict[str, Any]:
        """The values that `json.dumps` takes; `from_json` reads the text.

        Raises:
            UnsupportedError: the fragment carries something (data overlays) that JSON has no place for.
        """
        if self._extra:
            raise UnsupportedError(f"fragment {self.id} carries data overlays, which cannot be put into JSON")
        return {
            "id": self.id,
            "files": [
                {
                    "path": str(one.path),
                    "fields": list(one.fields),
                    "column_indices": list(one.column_indices),
                    "file_major_version": one.file_major_version,
                    "file_minor_version": one.file_minor_version,
                    "file_size_bytes": one.file_size_bytes,
                    "base_id": one.base_id,
                }
                for one in self.files
            ],
            "overlays": [],
            "physical_rows": self.physical_rows,
            "deletion_file": None if self.deletion_file is None else self.deletion_file.asdict(),
            "row_id_meta": _as_dict(self.row_id_meta),
            "created_at_version_meta": _as_dict(self.created_at_version_meta),
            "last_updated_at_version_meta": _as_dict(self.last_updated_at_version_meta),
        }

    @staticmethod
    def from_json(json_data: str) -> FragmentMetadata:
        """The fragment that JSON text describes.

        Raises:
            InvalidInputError: it does not describe one.
            UnsupportedError: a fragment with data overlays.
        """
        values = _parsed(lambda: json.loads(json_data), "a fragment")

        def build() -> FragmentMetadata:
            if values.get("overlays"):
                raise UnsupportedError("fragments with data overlays are not supported")
            deletion = values.get("deletion_file")
            ids, created, updated = (
                values.get(name)
                for name in ("row_id_meta", "created_at_version_meta", "last_updated_at_version_meta")
            )
            return FragmentMetadata(
                values["id"],
                [DataFile(**one) for one in values["files"]],
                values["physical_rows"],
                None if deletion is None else DeletionFile(**deletion),
                None if ids is None else RowIdMeta._of(ids),
                None if created is None else RowDatasetVersionMeta._of(created),
                None if updated is None else RowDatasetVersionMeta._of(updated),
            )

        found: FragmentMetadata = _parsed(build, "a fragment")
        return found


def _as_dict(value: _Inline | None) -> dict[str, list[int]] | None:
    return None if value is None else value.asdict()


def _parsed(build: Any, what: str) -> Any:
    try:
        return build()
    except (UnsupportedError, InvalidInputError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"this does not describe {what}: {type(error).__name__}: {error}") from error


# -- to and from the table room ------------------------------------------------------------------------


def data_file_of(stored: StoredFile) -> DataFile:
    """A data file of the table room as users see it."""
    return DataFile(
        stored.path,
        list(stored.fields),
        list(stored.column_indices),
        *stored.version,
        stored.size or None,
        stored.base_id,
    )


def stored_file_of(given: DataFile) -> StoredFile:
    """A data file that a user hands over.

    Raises:
        TypeError: it is not a `DataFile`.
    """
    if not isinstance(given, DataFile):
        raise TypeError(f"expected a DataFile, got {type(given).__name__}")
    return StoredFile(
        str(given.path),
        tuple(given.fields),
        tuple(given.column_indices),
        (given.file_major_version, given.file_minor_version),
        given.file_size_bytes or 0,
        given.base_id,
    )


def _stored_deletions(given: DeletionFile) -> StoredDeletions:
    return StoredDeletions(
        _FILE_TYPE_NUMBERS[given.file_type],
        given.read_version,
        given.id,
        given.num_deleted_rows,
        given.base_id,
    )


def metadata_of(fragment: Fragment) -> FragmentMetadata:
    """A fragment of the table room as users see it."""
    deletion = fragment.deletion_file
    return FragmentMetadata(
        fragment.id,
        [data_file_of(one) for one in fragment.files],
        fragment.physical_rows,
        None
        if deletion is None
        else DeletionFile(
            deletion.read_version,
            deletion.id,
            _FILE_TYPES[deletion.file_type],
            deletion.num_deleted_rows,
            deletion.base_id,
        ),
        None if fragment.row_ids is None else RowIdMeta(fragment.row_ids),
        None if fragment.created_at is None else RowDatasetVersionMeta(fragment.created_at),
        None if fragment.last_updated_at is None else RowDatasetVersionMeta(fragment.last_updated_at),
        _extra=fragment.extra,
    )


def fragment_of(given: FragmentMetadata) -> Fragment:
    """A fragment that a user hands over.

    Raises:
        TypeError: it is not a `FragmentMetadata`.
        UnsupportedError: it has data overlays.
    """
    if not isinstance(given, FragmentMetadata):
        raise TypeError(f"expected FragmentMetadata, got {type(given).__name__}")
    if given.overlays:
        raise UnsupportedError(f"fragment {given.id}: data overlays are not supported")
    return Fragment(
        given.id,
        tuple([stored_file_of(one) for one in given.files]),
        given.physical_rows,
        None if given.deletion_file is None else _stored_deletions(given.deletion_file),
        None if given.row_id_meta is None else given.row_id_meta.data,
        None if given.created_at_version_meta is None else given.created_at_version_meta.data,
        None if given.last_updated_at_version_meta is None else given.last_updated_at_version_meta.data,
        given._extra,
    )


def fragments_of(given: Iterable[FragmentMetadata]) -> tuple[Fragment, ...]:
    """Several fragments that a user hands over."""
    return tuple([fragment_of(one) for one in given])
