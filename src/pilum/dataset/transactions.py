"""Transactions that users build, commit and read back (spec/api.md, section 7).

A `Transaction` is an operation and the version it was computed on.  Every operation is a plain value below
`LanceOperation`; `operation_of` turns it into the operation of the table room, which says what it does to a
table, and `transaction_of` shows one from the history.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pilum import table
from pilum.dataset.fragment_metadata import (
    DataFile,
    FragmentMetadata,
    data_file_of,
    fragments_of,
    metadata_of,
    stored_file_of,
)
from pilum.dataset.index_value import Index, index_of, stored_index
from pilum.dataset.lance_schema import LanceSchema, schema_of
from pilum.errors import InvalidInputError, UnsupportedError

__all__ = ["DatasetBasePath", "LanceOperation", "Transaction", "operation_of", "transaction_of"]


@dataclass
class DatasetBasePath:
    """Another place where files of a dataset lie.

    Attributes:
        path: address.
        name: unique among the bases.
        is_dataset_root: whether the place is laid out like a dataset, with a ``data`` folder.
        id: number that files refer to; None lets the commit choose.
    """

    path: str
    name: str | None = None
    is_dataset_root: bool = False
    id: int | None = None


def base_path_of(stored: table.BasePath) -> DatasetBasePath:
    """A base path as users see it."""
    return DatasetBasePath(stored.path, stored.name, stored.is_dataset_root, stored.id)


def stored_base(given: DatasetBasePath) -> table.BasePath:
    """A base path that a user hands over."""
    return table.BasePath(given.id or 0, given.path, given.is_dataset_root, given.name)


class LanceOperation:
    """The kinds of changes; each is a value that a `Transaction` carries to `LanceDataset.commit`."""

    class BaseOperation:
        """What all operations are.  One that pilum can only carry shows itself as this class."""

    @dataclass
    class Append(BaseOperation):
        """Add fragments.

        Attributes:
            fragments: the new fragments, from `write_fragments` or `LanceFragment.create`.
        """

        fragments: Iterable[FragmentMetadata]

        def __post_init__(self) -> None:
            self.fragments = _fragments(self.fragments)

    @dataclass
    class Delete(BaseOperation):
        """Delete rows.

        Attributes:
            updated_fragments: fragments with their new deletion file, from `LanceFragment.delete`.
            deleted_fragment_ids: fragments that lost all rows.
            predicate: what the rows matched, for the history.
        """

        updated_fragments: Iterable[FragmentMetadata]
        deleted_fragment_ids: Iterable[int]
        predicate: str

        def __post_init__(self) -> None:
            self.updated_fragments = _fragments(self.updated_fragments)
            self.deleted_fragment_ids = list(self.deleted_fragment_ids)

    @dataclass
    class Overwrite(BaseOperation):
        """Replace all rows and the schema, or create a dataset.

        Attributes:
            new_schema: the schema.
            fragments: the rows.
            initial_bases: other places where files lie (creation only).
        """

        new_schema: LanceSchema | pa.Schema
        fragments: Iterable[FragmentMetadata]
        initial_bases: list[DatasetBasePath] | None = None

        def __post_init__(self) -> None:
            self.fragments = _fragments(self.fragments)
            schema_of(self.new_schema)

    @dataclass
    class Restore(BaseOperation):
        """Make an old version the newest one.

        Attributes:
            version: which.
        """

        version: int

    @dataclass
    class Update(BaseOperation):
        """Change rows: move them to new fragments, or give columns new files.

        Attributes:
            removed_fragment_ids: fragments that lost all rows.
            updated_fragments: fragments with a new deletion file or new data files.
            new_fragments: moved and inserted rows.
            fields_modified: ids of fields with new values in the updated fragments.
            fields_for_preserving_frag_bitmap: ids of fields whose values changed in moved rows.
            update_mode: ``"rewrite_rows"``, ``"rewrite_columns"`` or empty (rows).
            updated_fragment_offsets: fragment id -> Roaring bitmap of the rows whose columns changed.
        """

        removed_fragment_ids: list[int] = field(default_factory=list)
        updated_fragments: list[FragmentMetadata] = field(default_factory=list)
        new_fragments: list[FragmentMetadata] = field(default_factory=list)
        fields_modified: list[int] = field(default_factory=list)
        fields_for_preserving_frag_bitmap: list[int] = field(default_factory=list)
        update_mode: str = ""
        updated_fragment_offsets: dict[int, bytes] | None = None

        def __post_init__(self) -> None:
            self.updated_fragments = _fragments(self.updated_fragments)
            self.new_fragments = _fragments(self.new_fragments)
            if self.update_mode not in ("", *_UPDATE_MODES):
                raise InvalidInputError(
                    f"update_mode must be rewrite_rows or rewrite_columns, got {self.update_mode!r}"
                )

    @dataclass
    class Merge(BaseOperation):
        """Add or cast columns: every fragment with its files, and the new schema.

        Attributes:
            fragments: all fragments of the dataset.
            schema: the new schema, with the ids of the fields that stay.
            preserves_nullability: that no column which allowed nulls now forbids them.
        """

        fragments: Iterable[FragmentMetadata]
        schema: LanceSchema | pa.Schema
        preserves_nullability: bool = False

        def __post_init__(self) -> None:
            self.fragments = _fragments(self.fragments)
            schema_of(self.schema)

    @dataclass
    class Project(BaseOperation):
        """Drop, rename or reorder columns without touching data.

        Attributes:
            schema: the new schema, with the ids of the fields that stay.
            preserves_nullability: that no column which allowed nulls now forbids them.
        """

        schema: LanceSchema
        preserves_nullability: bool = False

    @dataclass
    class RewriteGroup:
        """Fragments and those that take their place.

        Attributes:
            old_fragments: fragments that go.
            new_fragments: fragments with the same live rows in the same order.
        """

        old_fragments: Iterable[FragmentMetadata]
        new_fragments: Iterable[FragmentMetadata]

        def __post_init__(self) -> None:
            self.old_fragments = _fragments(self.old_fragments)
            self.new_fragments = _fragments(self.new_fragments)

    @dataclass
    class RewrittenIndex:
        """An index segment whose row addresses were translated.

        Attributes:
            old_id, new_id: uuids of the segment before and after.
            new_details_type_url, new_details_value: what kind of index it is.
            new_index_version: layout of the new files.
        """

        old_id: str
        new_id: str
        new_details_type_url: str
        new_details_value: bytes
        new_index_version: int

    @dataclass
    class Rewrite(BaseOperation):
        """Compact fragments.

        Attributes:
            groups: what replaces what.
            rewritten_indices: translated index segments.
        """

        groups: Iterable[LanceOperation.RewriteGroup]
        rewritten_indices: Iterable[LanceOperation.RewrittenIndex]

        def __post_init__(self) -> None:
            self.groups = list(self.groups)
            self.rewritten_indices = list(self.rewritten_indices)

    @dataclass
    class CreateIndex(BaseOperation):
        """Add and remove index entries.

        Attributes:
            new_indices: entries to add.
            removed_indices: entries to remove.
        """

        new_indices: list[Index]
        removed_indices: list[Index]

    @dataclass
    class UpdateMap:
        """A change to a map of strings.

        Attributes:
            updates: key -> new value; None deletes the key.
            replace: whether the map is emptied first.
        """

        updates: dict[str, str | None]
        replace: bool = False

    @dataclass
    class UpdateConfig(BaseOperation):
        """Change config and metadata; None leaves a map alone.

        Attributes:
            config_updates: table config.
            table_metadata_updates: free metadata of the dataset.
            schema_metadata_updates: metadata of the Arrow schema.
            field_metadata_updates: field id -> change of its metadata.
        """

        config_updates: LanceOperation.UpdateMap | None = None
        table_metadata_updates: LanceOperation.UpdateMap | None = None
        schema_metadata_updates: LanceOperation.UpdateMap | None = None
        field_metadata_updates: dict[int, LanceOperation.UpdateMap] | None = None

    @dataclass
    class DataReplacementGroup:
        """A fragment and the new file of some of its columns.

        Attributes:
            fragment_id: the fragment.
            new_file: the file.
        """

        fragment_id: int
        new_file: DataFile

    @dataclass
    class DataReplacement(BaseOperation):
        """Give columns of some fragments new files, row by row the same rows.

        Attributes:
            replacements: one for each fragment; all files hold the same fields.
        """

        replacements: list[LanceOperation.DataReplacementGroup]

    @dataclass
    class Clone(BaseOperation):
        """How a dataset or branch was made from another one; seen in the history only.

        Attributes:
            is_shallow: whether the files stayed where they were.
            ref_name: branch of the source, None for main.
            ref_version: version of the source.
            ref_path: address of the source.
            branch_name: name of the branch that was made.
        """

        is_shallow: bool
        ref_name: str | None
        ref_version: int
        ref_path: str
        branch_name: str | None

    @dataclass
    class DataOverlayFile:
        """Values that lie over those of a data file; not supported in commits."""

        data_file: DataFile
        offsets: Any
        committed_version: int | None = None

    @dataclass
    class DataOverlayGroup:
        """Overlays of a fragment; not supported in commits."""

        fragment_id: int
        overlays: list[LanceOperation.DataOverlayFile]

    @dataclass
    class DataOverlay(BaseOperation):
        """Lay values over data files; not supported in commits."""

        groups: list[LanceOperation.DataOverlayGroup]


def _fragments(given: Any) -> list[FragmentMetadata]:
    fragments = None
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        fragments = list(given)
    wrong = (
        given
        if fragments is None
        else next((x for x in fragments if not isinstance(x, FragmentMetadata)), None)
    )
    if wrong is not None or fragments is None:
        raise TypeError(f"fragments must be list[FragmentMetadata], got {type(wrong)}")
    return fragments


@dataclass
class Transaction:
    """An operation and the version it was computed on.

    Attributes:
        read_version: the version; 0 when the operation creates a dataset.
        operation: what to do.
        uuid: makes the transaction recognisable.
        transaction_properties: free entries stored with it.
    """

    read_version: int
    operation: LanceOperation.BaseOperation
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    transaction_properties: dict[str, str] | None = field(default_factory=dict)


# -- to the table room ---------------------------------------------------------------------------------

_UPDATE_MODES = {"rewrite_rows": table.REWRITE_ROWS, "rewrite_columns": table.REWRITE_COLUMNS}


def operation_of(given: LanceOperation.BaseOperation) -> table.Operation:
    """The operation that a user hands over.

    Raises:
        TypeError: it is not an operation.
        UnsupportedError: pilum cannot commit this kind.
    """
    convert = _TO_TABLE.get(type(given))
    if convert is None:
        if isinstance(given, LanceOperation.BaseOperation):
            raise UnsupportedError(f"pilum cannot commit a {type(given).__name__} operation")
        raise TypeError(f"operation must be a LanceOperation.BaseOperation or Transaction, got {type(given)}")
    converted: table.Operation = convert(given)
    return converted


def stored_transaction(given: Transaction) -> table.Transaction:
    """The transaction that a user hands over."""
    return table.Transaction(
        given.read_version,
        given.uuid,
        operation_of(given.operation),
        dict(given.transaction_properties or {}),
    )


def _overwrite(given: LanceOperation.Overwrite) -> table.Operation:
    fragments = fragments_of(given.fragments)
    versions = {file_version(file.version) for one in fragments for file in one.files}
    if len(versions) > 1:
        raise InvalidInputError(f"overwrite: the fragments have files of several formats: {sorted(versions)}")
    return table.Overwrite(
        fragments,
        schema_of(given.new_schema),
        versions.pop() if versions else None,
        initial_bases=tuple([stored_base(one) for one in given.initial_bases or ()]),
    )


def file_version(stored: tuple[int, int]) -> tuple[int, int]:
    """File format version of the numbers that are stored with a data file."""
    from pilum.table.model import file_format_version

    return file_format_version(stored)


def _update_map(given: LanceOperation.UpdateMap | None) -> table.UpdateMap | None:
    return None if given is None else table.UpdateMap(dict(given.updates), given.replace)


def _rewritten(given: LanceOperation.RewrittenIndex) -> table.RewrittenIndex:
    return table.RewrittenIndex(
        uuids.UUID(given.old_id).bytes,
        uuids.UUID(given.new_id).bytes,
        (given.new_details_type_url, given.new_details_value),
        given.new_index_version,
    )


_TO_TABLE: Mapping[type, Any] = {
    LanceOperation.Append: lambda one: table.Append(fragments_of(one.fragments)),
    LanceOperation.Delete: lambda one: table.Delete(
        fragments_of(one.updated_fragments),
        tuple(one.deleted_fragment_ids),
        one.predicate,
        affected_rows=False,
    ),
    LanceOperation.Overwrite: _overwrite,
    LanceOperation.Restore: lambda one: table.Restore(one.version),
    LanceOperation.Update: lambda one: table.Update(
        tuple(one.removed_fragment_ids),
        fragments_of(one.updated_fragments),
        fragments_of(one.new_fragments),
        tuple(one.fields_modified),
        fields_for_preserving_frag_bitmap=tuple(one.fields_for_preserving_frag_bitmap),
        update_mode=_UPDATE_MODES.get(one.update_mode, table.REWRITE_ROWS),
        updated_offsets=dict(one.updated_fragment_offsets or {}),
        affected_rows=False,
    ),
    LanceOperation.Merge: lambda one: table.Merge(
        fragments_of(one.fragments), schema_of(one.schema), one.preserves_nullability
    ),
    LanceOperation.Project: lambda one: table.Project(schema_of(one.schema), one.preserves_nullability),
    LanceOperation.Rewrite: lambda one: table.Rewrite(
        tuple(
            [
                table.RewriteGroup(fragments_of(group.old_fragments), fragments_of(group.new_fragments))
                for group in one.groups
            ]
        ),
        tuple([_rewritten(index) for index in one.rewritten_indices]),
    ),
    LanceOperation.CreateIndex: lambda one: table.CreateIndex(
        tuple([stored_index(index) for index in one.new_indices]),
        tuple([stored_index(index) for index in one.removed_indices]),
    ),
    LanceOperation.UpdateConfig: lambda one: table.UpdateConfig(
        _update_map(one.config_updates),
        _update_map(one.table_metadata_updates),
        _update_map(one.schema_metadata_updates),
        {
            key: _update_map(change) or table.UpdateMap()
            for key, change in (one.field_metadata_updates or {}).items()
        },
    ),
    LanceOperation.DataReplacement: lambda one: table.DataReplacement(
        tuple([(group.fragment_id, stored_file_of(group.new_file)) for group in one.replacements])
    ),
}


# -- from the table room -------------------------------------------------------------------------------


def transaction_of(stored: table.Transaction) -> Transaction:
    """A transaction of the history as users see it."""
    show = _FROM_TABLE.get(type(stored.operation))
    operation = LanceOperation.BaseOperation() if show is None else show(stored.operation)
    return Transaction(stored.read_version, operation, stored.uuid, dict(stored.properties))


def _metadata(fragments: Sequence[table.Fragment]) -> list[FragmentMetadata]:
    return [metadata_of(one) for one in fragments]


def _shown_map(stored: table.UpdateMap | None) -> LanceOperation.UpdateMap | None:
    return None if stored is None else LanceOperation.UpdateMap(dict(stored.entries), stored.replace)


def _shown_update(one: table.Update) -> LanceOperation.Update:
    return LanceOperation.Update(
        list(one.removed_fragment_ids),
        _metadata(one.updated_fragments),
        _metadata(one.new_fragments),
        list(one.fields_modified),
        list(one.fields_for_preserving_frag_bitmap),
        next(name for name, mode in _UPDATE_MODES.items() if mode == one.update_mode),
        dict(one.updated_offsets) or None,
    )


def _shown_rewrite(one: table.Rewrite) -> LanceOperation.Rewrite:
    groups = [
        LanceOperation.RewriteGroup(_metadata(group.old_fragments), _metadata(group.new_fragments))
        for group in one.groups
    ]
    indices = [
        LanceOperation.RewrittenIndex(
            str(uuids.UUID(bytes=index.old_id)),
            str(uuids.UUID(bytes=index.new_id)),
            *(index.details or ("", b"")),
            index.index_version,
        )
        for index in one.rewritten_indices
    ]
    return LanceOperation.Rewrite(groups, indices)


def _shown_config(one: table.UpdateConfig) -> LanceOperation.UpdateConfig:
    fields = {
        key: LanceOperation.UpdateMap(dict(map_.entries), map_.replace)
        for key, map_ in one.field_metadata.items()
    }
    return LanceOperation.UpdateConfig(
        _shown_map(one.config),
        _shown_map(one.table_metadata),
        _shown_map(one.schema_metadata),
        fields or None,
    )


_FROM_TABLE: Mapping[type, Any] = {
    table.Append: lambda one: LanceOperation.Append(_metadata(one.fragments)),
    table.Delete: lambda one: LanceOperation.Delete(
        _metadata(one.updated_fragments), list(one.deleted_fragment_ids), one.predicate
    ),
    table.Overwrite: lambda one: LanceOperation.Overwrite(
        LanceSchema(one.schema),
        _metadata(one.fragments),
        [base_path_of(base) for base in one.initial_bases] or None,
    ),
    table.Restore: lambda one: LanceOperation.Restore(one.version),
    table.Update: _shown_update,
    table.Merge: lambda one: LanceOperation.Merge(
        _metadata(one.fragments), LanceSchema(one.schema), one.preserves_nullability
    ),
    table.Project: lambda one: LanceOperation.Project(LanceSchema(one.schema), one.preserves_nullability),
    table.Rewrite: _shown_rewrite,
    table.CreateIndex: lambda one: LanceOperation.CreateIndex(
        [index_of(index) for index in one.new_indices], [index_of(index) for index in one.removed_indices]
    ),
    table.UpdateConfig: _shown_config,
    table.DataReplacement: lambda one: LanceOperation.DataReplacement(
        [LanceOperation.DataReplacementGroup(key, data_file_of(file)) for key, file in one.replacements]
    ),
    table.Clone: lambda one: LanceOperation.Clone(
        one.is_shallow, one.ref_name, one.ref_version, one.ref_path, one.branch_name
    ),
}
