"""Operations between values and messages (spec/table.md, section 5.6).

One pair of functions for every kind of operation, found in a table.  An operation whose message says something
that cannot be represented (a logical type of a later release) stays `Opaque`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pilum.errors import CorruptFileError, UnsupportedError
from pilum.proto.lazy import table_pb2 as pb
from pilum.schema import Schema
from pilum.table import operations as ops
from pilum.table.codec import decode_base_path, encode_base_path
from pilum.table.fragment_codec import decode_data_file, decode_fragment, encode_data_file, encode_fragment
from pilum.table.indices import decode_index, encode_coverage
from pilum.table.model import Fragment, IndexMetadata

__all__ = ["decode_operation", "encode_operation"]


class _Codec(NamedTuple):
    """How one kind of operation is stored: functions between its value and its message."""

    encode: Callable[[Any, Any], None]
    decode: Callable[[Any], ops.Operation]


def encode_operation(operation: ops.Operation, message: pb.Transaction) -> None:
    """Put an operation into a transaction message.

    Raises:
        UnsupportedError: an operation that has no message.
    """
    codec = _CODECS.get(operation.kind)
    if codec is None:
        raise UnsupportedError(f"a {type(operation).__name__} operation cannot be stored")
    target = getattr(message, operation.kind)
    target.SetInParent()
    codec.encode(operation, target)


def decode_operation(message: pb.Transaction, data: bytes) -> ops.Operation:
    """The operation of a transaction message; ``data`` is its encoded form, kept by `Opaque`.

    Raises:
        CorruptFileError: the message contradicts itself.
    """
    kind = message.WhichOneof("operation")
    if kind is None:
        return ops.Opaque(ops.UNKNOWN, data)
    try:
        return _CODECS[kind].decode(getattr(message, kind))
    except UnsupportedError:
        return ops.Opaque(kind, data)


# -- parts ---------------------------------------------------------------------------------------------


def _fragments(messages: Iterable[pb.DataFragment]) -> tuple[Fragment, ...]:
    return tuple([decode_fragment(message) for message in messages])


def _messages(fragments: Iterable[Fragment]) -> list[pb.DataFragment]:
    return [pb.DataFragment.FromString(encode_fragment(fragment)) for fragment in fragments]


def _indices(messages: Iterable[pb.IndexMetadata]) -> tuple[IndexMetadata, ...]:
    return tuple([decode_index(message) for message in messages])


def _index_messages(indices: Iterable[IndexMetadata]) -> list[pb.IndexMetadata]:
    return [pb.IndexMetadata.FromString(index.message) for index in indices]


def _sstables(messages: Iterable[pb.Transaction.CompactedSstable]) -> tuple[tuple[bytes, int], ...]:
    return tuple([(one.shard.uuid, one.generation) for one in messages])


def _sstable_messages(values: Iterable[tuple[bytes, int]]) -> list[pb.Transaction.CompactedSstable]:
    return [
        pb.Transaction.CompactedSstable(shard=pb.UUID(uuid=shard), generation=generation)
        for shard, generation in values
    ]


# -- rows ----------------------------------------------------------------------------------------------


def _encode_append(value: ops.Append, message: pb.Transaction.Append) -> None:
    message.fragments.extend(_messages(value.fragments))


def _decode_append(message: pb.Transaction.Append) -> ops.Append:
    return ops.Append(_fragments(message.fragments))


def _encode_delete(value: ops.Delete, message: pb.Transaction.Delete) -> None:
    message.updated_fragments.extend(_messages(value.updated_fragments))
    message.deleted_fragment_ids.extend(value.deleted_fragment_ids)
    message.predicate = value.predicate


def _decode_delete(message: pb.Transaction.Delete) -> ops.Delete:
    return ops.Delete(
        _fragments(message.updated_fragments), tuple(message.deleted_fragment_ids), message.predicate
    )


def _encode_overwrite(value: ops.Overwrite, message: pb.Transaction.Overwrite) -> None:
    message.fragments.extend(_messages(value.fragments))
    message.schema.extend(value.schema.to_proto())
    message.config_upsert_values.update(value.config_upserts)
    message.initial_bases.extend([encode_base_path(base) for base in value.initial_bases])


def _decode_overwrite(message: pb.Transaction.Overwrite) -> ops.Overwrite:
    return ops.Overwrite(
        _fragments(message.fragments),
        Schema.from_proto(message.schema),
        None,
        dict(message.config_upsert_values),
        tuple([decode_base_path(base) for base in message.initial_bases]),
    )


def _encode_update(value: ops.Update, message: pb.Transaction.Update) -> None:
    message.removed_fragment_ids.extend(value.removed_fragment_ids)
    message.updated_fragments.extend(_messages(value.updated_fragments))
    message.new_fragments.extend(_messages(value.new_fragments))
    message.fields_modified.extend(value.fields_modified)
    message.compacted_sstables.extend(_sstable_messages(value.compacted_sstables))
    message.fields_for_preserving_frag_bitmap.extend(value.fields_for_preserving_frag_bitmap)
    message.update_mode = value.update_mode  # type: ignore[assignment]
    if value.inserted_rows is not None:
        _encode_key_filter(value.inserted_rows, message.inserted_rows)
    for fragment_id, bitmap in value.updated_offsets.items():
        message.updated_fragment_offset_bitmaps[fragment_id] = bitmap


def _decode_update(message: pb.Transaction.Update) -> ops.Update:
    if message.update_mode not in (ops.REWRITE_ROWS, ops.REWRITE_COLUMNS):
        raise UnsupportedError(f"update mode {message.update_mode}")
    offsets = {
        # The form of older releases.
        fragment_id: encode_coverage(one.offsets)
        for fragment_id, one in message.updated_fragment_offsets.items()
    }
    offsets.update(message.updated_fragment_offset_bitmaps)
    return ops.Update(
        removed_fragment_ids=tuple(message.removed_fragment_ids),
        updated_fragments=_fragments(message.updated_fragments),
        new_fragments=_fragments(message.new_fragments),
        fields_modified=tuple(message.fields_modified),
        compacted_sstables=_sstables(message.compacted_sstables),
        fields_for_preserving_frag_bitmap=tuple(message.fields_for_preserving_frag_bitmap),
        update_mode=int(message.update_mode),
        inserted_rows=_decode_key_filter(message.inserted_rows)
        if message.HasField("inserted_rows")
        else None,
        updated_offsets=offsets,
    )


def _encode_key_filter(value: ops.KeyFilter, message: pb.Transaction.KeyExistenceFilter) -> None:
    message.SetInParent()
    message.field_ids.extend(value.field_ids)
    if value.exact is not None:
        message.exact.SetInParent()
        message.exact.key_hashes.extend(value.exact)
        return
    message.bloom.bitmap = value.bitmap
    message.bloom.num_bits = value.num_bits
    message.bloom.number_of_items = value.number_of_items
    message.bloom.probability = value.probability


def _decode_key_filter(message: pb.Transaction.KeyExistenceFilter) -> ops.KeyFilter:
    bloom = message.bloom
    exact = tuple(message.exact.key_hashes) if message.WhichOneof("data") == "exact" else None
    return ops.KeyFilter(
        tuple(message.field_ids),
        exact,
        bloom.bitmap,
        bloom.num_bits,
        bloom.number_of_items,
        bloom.probability,
    )


# -- columns -------------------------------------------------------------------------------------------


def _encode_merge(value: ops.Merge, message: pb.Transaction.Merge) -> None:
    message.fragments.extend(_messages(value.fragments))
    message.schema.extend(value.schema.to_proto())
    message.preserves_nullability = value.preserves_nullability


def _decode_merge(message: pb.Transaction.Merge) -> ops.Merge:
    return ops.Merge(
        _fragments(message.fragments), Schema.from_proto(message.schema), message.preserves_nullability
    )


def _encode_project(value: ops.Project, message: pb.Transaction.Project) -> None:
    message.schema.extend(value.schema.to_proto())
    message.preserves_nullability = value.preserves_nullability


def _decode_project(message: pb.Transaction.Project) -> ops.Project:
    return ops.Project(Schema.from_proto(message.schema), message.preserves_nullability)


def _encode_data_replacement(value: ops.DataReplacement, message: pb.Transaction.DataReplacement) -> None:
    for fragment_id, file in value.replacements:
        message.replacements.add(fragment_id=fragment_id, new_file=encode_data_file(file))


def _decode_data_replacement(message: pb.Transaction.DataReplacement) -> ops.DataReplacement:
    return ops.DataReplacement(
        tuple([(one.fragment_id, decode_data_file(one.new_file)) for one in message.replacements])
    )


# -- indices and compaction ----------------------------------------------------------------------------


def _encode_create_index(value: ops.CreateIndex, message: pb.Transaction.CreateIndex) -> None:
    message.new_indices.extend(_index_messages(value.new_indices))
    message.removed_indices.extend(_index_messages(value.removed_indices))


def _decode_create_index(message: pb.Transaction.CreateIndex) -> ops.CreateIndex:
    return ops.CreateIndex(_indices(message.new_indices), _indices(message.removed_indices))


def _encode_rewrite(value: ops.Rewrite, message: pb.Transaction.Rewrite) -> None:
    for group in value.groups:
        message.groups.add(
            old_fragments=_messages(group.old_fragments), new_fragments=_messages(group.new_fragments)
        )
    for one in value.rewritten_indices:
        added = message.rewritten_indices.add(new_index_version=one.index_version)
        added.old_id.uuid, added.new_id.uuid = one.old_id, one.new_id
        if one.details is not None:
            added.new_index_details.type_url, added.new_index_details.value = one.details
        added.new_index_files.extend([pb.IndexFile(path=path, size_bytes=size) for path, size in one.files])


def _decode_rewrite(message: pb.Transaction.Rewrite) -> ops.Rewrite:
    groups = [
        ops.RewriteGroup(_fragments(one.old_fragments), _fragments(one.new_fragments))
        for one in message.groups
    ]
    if not groups and message.old_fragments:
        groups = [ops.RewriteGroup(_fragments(message.old_fragments), _fragments(message.new_fragments))]
    return ops.Rewrite(
        tuple(groups), tuple([_decode_rewritten_index(one) for one in message.rewritten_indices])
    )


def _decode_rewritten_index(message: pb.Transaction.Rewrite.RewrittenIndex) -> ops.RewrittenIndex:
    details = message.new_index_details
    return ops.RewrittenIndex(
        message.old_id.uuid,
        message.new_id.uuid,
        (details.type_url, details.value) if message.HasField("new_index_details") else None,
        message.new_index_version,
        tuple([(one.path, one.size_bytes) for one in message.new_index_files]),
    )


# -- configuration -------------------------------------------------------------------------------------


def _encode_reserve(value: ops.ReserveFragments, message: pb.Transaction.ReserveFragments) -> None:
    message.num_fragments = value.num_fragments


def _decode_reserve(message: pb.Transaction.ReserveFragments) -> ops.ReserveFragments:
    return ops.ReserveFragments(message.num_fragments)


def _encode_update_config(value: ops.UpdateConfig, message: pb.Transaction.UpdateConfig) -> None:
    for change, target in (
        (value.config, message.config_updates),
        (value.table_metadata, message.table_metadata_updates),
        (value.schema_metadata, message.schema_metadata_updates),
    ):
        if change is not None:
            target.SetInParent()
            _encode_map(change, target)
    for field_id, change in value.field_metadata.items():
        _encode_map(change, message.field_metadata_updates[field_id])


def _encode_map(value: ops.UpdateMap, message: pb.Transaction.UpdateMap) -> None:
    message.replace = value.replace
    for key, text in value.entries.items():
        message.update_entries.add(key=key, value=text)


def _decode_map(message: pb.Transaction.UpdateMap) -> ops.UpdateMap:
    entries = {one.key: one.value if one.HasField("value") else None for one in message.update_entries}
    return ops.UpdateMap(entries, message.replace)


def _decode_update_config(message: pb.Transaction.UpdateConfig) -> ops.UpdateConfig:
    old = bool(
        message.upsert_values or message.delete_keys or message.schema_metadata or message.field_metadata
    )
    maps = {
        name: _decode_map(getattr(message, f"{name}_updates"))
        for name in ("config", "table_metadata", "schema_metadata")
        if message.HasField(f"{name}_updates")  # type: ignore[arg-type]
    }
    fields = {key: _decode_map(one) for key, one in message.field_metadata_updates.items()}
    if not old:
        return ops.UpdateConfig(**maps, field_metadata=fields)
    if maps or fields:
        raise CorruptFileError("an update of the config that mixes the old and the new form")
    entries: dict[str, str | None] = dict.fromkeys(message.delete_keys)
    entries.update(message.upsert_values)
    return ops.UpdateConfig(
        ops.UpdateMap(entries) if entries else None,
        schema_metadata=_replacing(message.schema_metadata) if message.schema_metadata else None,
        field_metadata={key: _replacing(one.metadata) for key, one in message.field_metadata.items()},
    )


def _replacing(values: Mapping[str, str]) -> ops.UpdateMap:
    return ops.UpdateMap(dict(values), replace=True)


def _encode_update_bases(value: ops.UpdateBases, message: pb.Transaction.UpdateBases) -> None:
    message.new_bases.extend([encode_base_path(base) for base in value.new_bases])


def _decode_update_bases(message: pb.Transaction.UpdateBases) -> ops.UpdateBases:
    return ops.UpdateBases(tuple([decode_base_path(base) for base in message.new_bases]))


# -- versions and what lies outside --------------------------------------------------------------------


def _encode_restore(value: ops.Restore, message: pb.Transaction.Restore) -> None:
    message.version = value.version


def _decode_restore(message: pb.Transaction.Restore) -> ops.Restore:
    return ops.Restore(message.version)


def _encode_clone(value: ops.Clone, message: pb.Transaction.Clone) -> None:
    message.is_shallow = value.is_shallow
    message.ref_version = value.ref_version
    message.ref_path = value.ref_path
    if value.ref_name is not None:
        message.ref_name = value.ref_name
    if value.branch_name is not None:
        message.branch_name = value.branch_name


def _decode_clone(message: pb.Transaction.Clone) -> ops.Clone:
    return ops.Clone(
        message.is_shallow,
        message.ref_name if message.HasField("ref_name") else None,
        message.ref_version,
        message.ref_path,
        message.branch_name if message.HasField("branch_name") else None,
    )


def _encode_mem_wal(value: ops.UpdateMemWalState, message: pb.Transaction.UpdateMemWalState) -> None:
    message.compacted_sstables.extend(_sstable_messages(value.compacted_sstables))


def _decode_mem_wal(message: pb.Transaction.UpdateMemWalState) -> ops.UpdateMemWalState:
    return ops.UpdateMemWalState(_sstables(message.compacted_sstables))


def _encode_overlay(value: ops.DataOverlay, message: pb.Transaction.DataOverlay) -> None:
    message.MergeFromString(value.message)


def _decode_overlay(message: pb.Transaction.DataOverlay) -> ops.DataOverlay:
    return ops.DataOverlay(frozenset(one.fragment_id for one in message.groups), message.SerializeToString())


_CODECS: Mapping[str, _Codec] = {
    "append": _Codec(_encode_append, _decode_append),
    "delete": _Codec(_encode_delete, _decode_delete),
    "overwrite": _Codec(_encode_overwrite, _decode_overwrite),
    "create_index": _Codec(_encode_create_index, _decode_create_index),
    "rewrite": _Codec(_encode_rewrite, _decode_rewrite),
    "merge": _Codec(_encode_merge, _decode_merge),
    "restore": _Codec(_encode_restore, _decode_restore),
    "reserve_fragments": _Codec(_encode_reserve, _decode_reserve),
    "update": _Codec(_encode_update, _decode_update),
    "project": _Codec(_encode_project, _decode_project),
    "update_config": _Codec(_encode_update_config, _decode_update_config),
    "data_replacement": _Codec(_encode_data_replacement, _decode_data_replacement),
    "update_mem_wal_state": _Codec(_encode_mem_wal, _decode_mem_wal),
    "clone": _Codec(_encode_clone, _decode_clone),
    "update_bases": _Codec(_encode_update_bases, _decode_update_bases),
    "data_overlay": _Codec(_encode_overlay, _decode_overlay),
}
