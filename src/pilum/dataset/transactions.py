"""Transactions that users build, commit and read back (spec/api.md, section 7).

A `Transaction` is an operation and the version it was computed on.  `operation_of` turns an operation of a user into
that of the table room, which says what it does to a table, and `transaction_of` shows one from the history.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilum import table
from pilum.dataset.fragment_metadata import (
    FragmentMetadata,
    data_file_of,
    fragments_of,
    metadata_of,
    stored_file_of,
)
from pilum.dataset.index_value import index_of, stored_index
from pilum.dataset.lance_schema import LanceSchema, schema_of
from pilum.dataset.operations import UPDATE_MODES, DatasetBasePath, LanceOperation
from pilum.errors import InvalidInputError, UnsupportedError

__all__ = [
    "Transaction",
    "base_path_of",
    "operation_of",
    "stored_base",
    "stored_transaction",
    "transaction_of",
]


def base_path_of(stored: table.BasePath) -> DatasetBasePath:
    """A base path as users see it."""
    return DatasetBasePath(stored.path, stored.name, stored.is_dataset_root, stored.id)


def stored_base(given: DatasetBasePath) -> table.BasePath:
    """A base path that a user hands over."""
    return table.BasePath(given.id or 0, given.path, given.is_dataset_root, given.name)


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

_UPDATE_MODES = dict(zip(UPDATE_MODES, (table.REWRITE_ROWS, table.REWRITE_COLUMNS), strict=True))


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
