"""What single operations do, and what they refuse; the golden histories are in `test_replay`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.io import MemoryStore, Store
from pilum.proto import table_pb2 as pb
from pilum.schema import Field, Schema
from pilum.table import (
    Append,
    CreateIndex,
    DataOverlay,
    DataReplacement,
    Delete,
    Fragment,
    IndexMetadata,
    KeyFilter,
    Manifest,
    Merge,
    Opaque,
    Operation,
    Overwrite,
    Project,
    ReserveFragments,
    Restore,
    Rewrite,
    RewriteGroup,
    RewrittenIndex,
    RowIdSequence,
    Transaction,
    Update,
    UpdateConfig,
    UpdateMap,
    UpdateMemWalState,
    codec,
    commit,
    covered_fragments,
    created_versions,
    encode_row_ids,
    fragment_row_ids,
    index_files,
    latest_version,
    load_manifest,
    max_field_id,
    new_index,
    updated_versions,
)
from pilum.table.operations import REWRITE_COLUMNS
from pilum.table.roaring import encode_roaring
from pilum.table.transaction import decode_transaction, encode_transaction
from tests.table.samples import added_column, columns, deleting
from tests.table.tables import SCHEMA, data_file, drive, fragment, memory_table


def applied(store: Store, table: Manifest, operation: Operation) -> Manifest:
    return drive(commit(store, operation, read_version=table.version))


def stable_table(fragments: int = 2, rows: int = 3) -> tuple[Store, Manifest]:
    store = MemoryStore()
    create = Overwrite(tuple(fragment(rows) for _ in range(fragments)), SCHEMA)
    return store, drive(commit(store, create, read_version=None, stable_row_ids=True))


def index(
    name: str, *fields: int, covers: Any = (0, 1, 2), kind: str = "BTree", **more: Any
) -> IndexMetadata:
    return new_index(name, fields, 1, covers, details=(f"/lance.table.{kind}IndexDetails", b""), **more)


def coverage(table: Manifest) -> dict[str, Any]:
    return {one.name: covered_fragments(one) for one in table.indices}


# -- ids -----------------------------------------------------------------------------------------------


def test_ids_are_never_used_twice() -> None:
    store, table = memory_table(2)
    for operation in (
        Delete((), (0, 1)),
        Append((fragment(),)),
        Overwrite((fragment(),), SCHEMA),
        Restore(1),
    ):
        table = applied(store, table, operation)
    assert table.max_fragment_id == 3
    table = applied(store, table, Append((fragment(),)))
    assert [one.id for one in table.fragments] == [0, 1, 4]


def test_reserved_ids() -> None:
    store, table = memory_table(2)
    table = applied(store, table, ReserveFragments(3))
    assert table.max_fragment_id == 4
    table = applied(store, table, Append((replace(fragment(), id=3), fragment())))
    assert [one.id for one in table.fragments] == [0, 1, 3, 5]
    store, table = memory_table(0)
    assert applied(store, table, ReserveFragments(3)).max_fragment_id == 3
    with pytest.raises(InvalidInputError, match="invalid table"):
        applied(*memory_table(2), Append((replace(fragment(), id=1),)))


def test_rows_get_ids_at_the_commit() -> None:
    store, table = stable_table()
    assert table.next_row_id == 6
    appends = [Append((fragment(2),)), Append((fragment(4),))]
    for one in appends:
        table = drive(commit(store, one, read_version=1))
    assert [fragment_row_ids(one).to_array().tolist() for one in table.fragments[2:]] == [
        [6, 7],
        [8, 9, 10, 11],
    ]
    assert created_versions(table.fragments[3]).to_array().tolist() == [3] * 4
    table = applied(store, table, Restore(1))
    assert table.next_row_id == 12
    assert table.uses_stable_row_ids


# -- update --------------------------------------------------------------------------------------------


def test_moved_rows_stay_covered_by_indices_on_other_columns() -> None:
    store, table = stable_table(3)
    indices = (index("on a", 1), index("on b", 2), index("elsewhere", 1, covers=[1, 2]))
    table = applied(store, table, CreateIndex(indices))
    moved = replace(fragment(2), row_ids=encode_row_ids(RowIdSequence.of_array([0, 2])))
    mixed = replace(fragment(2), row_ids=encode_row_ids(RowIdSequence.of_array([1])))
    update = Update((0,), (), (moved, mixed), fields_for_preserving_frag_bitmap=(2,))
    table = applied(store, table, update)
    assert [one.id for one in table.fragments] == [1, 2, 3, 4]
    assert coverage(table) == {"on a": {0, 1, 2, 3}, "on b": {0, 1, 2}, "elsewhere": {1, 2}}
    assert fragment_row_ids(table.fragments[3]).to_array().tolist() == [1, 9]
    assert created_versions(table.fragments[3]).to_array().tolist() == [1, 3]
    assert updated_versions(table.fragments[2]).to_array().tolist() == [3, 3]


def test_a_column_update_marks_its_rows() -> None:
    store, table = stable_table()
    table = applied(
        store, table, CreateIndex((index("on a", 1, covers=[0, 1]), index("on b", 2, covers=[0, 1])))
    )
    update = Update(
        updated_fragments=(columns(table.fragments[0], 1),),
        fields_modified=(1,),
        update_mode=REWRITE_COLUMNS,
        updated_offsets={0: encode_roaring(np.array([2], np.uint32))},
    )
    table = applied(store, table, update)
    assert updated_versions(table.fragments[0]).to_array().tolist() == [1, 1, 3]
    assert coverage(table) == {"on a": {1}, "on b": {0, 1}}


@pytest.mark.parametrize("operation", [Update((7,)), Delete((), (7,)), DataReplacement(((7, data_file()),))])
def test_fragments_that_are_not_there(operation: Operation) -> None:
    with pytest.raises(InvalidInputError, match="the table has no fragment 7"):
        applied(*memory_table(), operation)


# -- columns -------------------------------------------------------------------------------------------


def test_adding_columns() -> None:
    store, table = stable_table()
    table = applied(store, table, CreateIndex((index("on a", 1, covers=[0, 1]),)))
    added = tuple(replace(one, files=(*one.files, data_file([3])), row_ids=None) for one in table.fragments)
    merged = applied(store, table, Merge(added, added_column()))
    assert merged.schema.names == ["id", "a", "b", "c"]
    assert coverage(merged) == {"on a": {0, 1}}
    assert fragment_row_ids(merged.fragments[1]).to_array().tolist() == [3, 4, 5]
    assert updated_versions(merged.fragments[1]).to_array().tolist() == [3] * 3
    rewritten = tuple(columns(one, 1) if one.id == 0 else one for one in merged.fragments)
    assert coverage(applied(store, merged, Merge(rewritten, added_column()))) == {"on a": {1}}
    assert max_field_id(merged) == 3
    dropped = applied(store, drive_latest(store), Project(SCHEMA))
    assert max_field_id(dropped) == 2  # the files of c are gone


def drive_latest(store: Store) -> Manifest:
    return drive(load_manifest(store, drive(latest_version(store))))


@pytest.mark.parametrize(
    ("change", "schema", "message"),
    [
        (lambda all_: all_[1:], SCHEMA, "fragment 0 of the table is not in the new list"),
        (lambda all_: (replace(all_[0], physical_rows=9), *all_[1:]), SCHEMA, "has 3 rows, the new one 9"),
        (lambda all_: all_, Schema((*SCHEMA.fields[:2], Field(2, "b", "string"))), "needs new files"),
        (lambda all_: all_, Schema((*SCHEMA.fields[:2], Field(2, "b", "int32", False))), "needs new files"),
    ],
)
def test_merges_that_are_refused(change: Any, schema: Schema, message: str) -> None:
    store, table = memory_table()
    with pytest.raises(InvalidInputError, match=message):
        applied(store, table, Merge(change(table.fragments), schema))


def test_a_new_column_takes_a_new_id() -> None:
    store, table = memory_table()
    table = applied(store, table, Project(SCHEMA.project(["id", "a"])))
    schema = Schema((*table.schema.fields, Field(2, "again", "int32")))
    with pytest.raises(InvalidInputError, match="field id 2, which was used before; new ids begin at 3"):
        applied(store, table, Merge(table.fragments, schema))


def test_a_cast_replaces_the_column_everywhere() -> None:
    store, table = memory_table()
    rewritten = tuple(columns(one, 1) for one in table.fragments)
    schema = Schema((SCHEMA.fields[0], Field(1, "a", "string"), SCHEMA.fields[2]))
    assert applied(store, table, Merge(rewritten, schema)).schema.field("a").logical_type == "string"


def test_dropping_columns_drops_files_and_indices() -> None:
    store, table = memory_table(1)
    one = replace(table.fragments[0], files=(data_file([0, 1]), data_file([2])))
    table = applied(store, table, Overwrite((one,), SCHEMA))
    table = applied(store, table, CreateIndex((index("on a", 1, covers=[1]), index("on b", 2, covers=[1]))))
    table = applied(store, table, Project(SCHEMA.project(["a"])))
    assert [file.fields for file in table.fragments[0].files] == [(0, 1)]
    assert list(coverage(table)) == ["on a"]
    with pytest.raises(InvalidInputError, match="no field with id 9"):
        applied(store, table, Project(Schema((Field(9, "x", "int32"),))))


def test_a_fragment_keeps_a_file_when_only_null_columns_are_left() -> None:
    store, table = memory_table(1)
    table = applied(store, table, Merge(table.fragments, added_column()))
    table = applied(store, table, Project(added_column().project(["c"])))
    assert [file.fields for file in table.fragments[0].files] == [(0, 1, 2)]
    assert table.num_rows == 3


def test_replacing_data() -> None:
    store, table = stable_table(1)
    table = applied(store, table, CreateIndex((index("on b", 2, covers=[0]),)))
    new, other = data_file([2]), data_file([2])
    table = applied(store, table, DataReplacement(((0, new),)))
    assert [file.fields for file in table.fragments[0].files] == [(0, 1, -2), (2,)]
    assert updated_versions(table.fragments[0]).to_array().tolist() == [3] * 3
    assert coverage(table) == {"on b": set()}
    table = applied(store, table, DataReplacement(((0, other),)))
    assert [file.path for file in table.fragments[0].files[1:]] == [other.path]
    with pytest.raises(InvalidInputError, match="same fields"):
        applied(store, table, DataReplacement(((0, new), (0, data_file([1])))))
    with pytest.raises(InvalidInputError, match="named twice"):
        applied(store, table, DataReplacement(((0, new), (0, new))))


# -- rewrite -------------------------------------------------------------------------------------------


def test_rewriting_translates_indices() -> None:
    store, table = memory_table()
    translated, other = index("i", 0, covers=[0, 1, 2]), index("j", 0, covers=[0, 1])
    table = applied(store, table, CreateIndex((translated, other)))
    rewrite = Rewrite(
        (RewriteGroup(table.fragments[:2], (fragment(6),)),),
        (RewrittenIndex(translated.uuid, b"n" * 16, ("/x.New", b"v"), 4, (("page", 9),)),),
    )
    table = applied(store, table, rewrite)
    assert [(one.id, one.physical_rows) for one in table.fragments] == [(2, 3), (3, 6)]
    assert coverage(table) == {"i": {2, 3}, "j": {0, 1}}
    assert table.indices[0].uuid == b"n" * 16
    assert index_files(table.indices[0]) == [("page", 9)]
    assert table.indices[0].dataset_version == 1


def test_rewriting_with_stable_ids() -> None:
    store, table = stable_table(3)
    zones = index("z", 0, covers=[0, 1, 2], kind="ZoneMap")
    table = applied(store, table, CreateIndex((index("i", 0), zones)))
    ids = RowIdSequence.concatenate(fragment_row_ids(one) for one in table.fragments[:2])
    new = replace(fragment(6), row_ids=encode_row_ids(ids))
    group = RewriteGroup(table.fragments[:2], (new,))
    with pytest.raises(InvalidInputError, match="row ids"):
        applied(store, table, Rewrite((replace(group, new_fragments=(fragment(6),)),)))
    table = applied(store, table, Rewrite((group,)))
    assert coverage(table) == {"i": {2, 3}, "z": {2}}
    assert table.next_row_id == 9


def test_rewrites_that_are_refused() -> None:
    store, table = memory_table()
    table = applied(store, table, CreateIndex((index("i", 0, covers=[1, 2]),)))
    group = RewriteGroup(table.fragments[:2], (fragment(6),))
    with pytest.raises(InvalidInputError, match="covers fragment 1 but not 0"):
        applied(store, table, Rewrite((group,), (RewrittenIndex(table.indices[0].uuid, b"n" * 16),)))
    with pytest.raises(InvalidInputError, match="in two groups"):
        applied(store, table, Rewrite((group, group)))


# -- configuration -------------------------------------------------------------------------------------


def test_maps() -> None:
    change = UpdateMap({"a": "1", "b": None})
    assert change.apply({"b": "2", "c": "3"}) == {"a": "1", "c": "3"}
    assert UpdateMap({"a": "1", "b": None}, replace=True).apply({"c": "3"}) == {"a": "1"}


def test_all_kinds_of_metadata() -> None:
    store, table = memory_table()
    change = UpdateMap({"k": "v"})
    table = applied(store, table, UpdateConfig(change, change, change, {2: change}))
    assert (table.config, table.table_metadata, table.schema.metadata) == ({"k": "v"},) * 3
    assert [one.metadata for one in table.schema.fields] == [{}, {}, {"k": "v"}]
    assert table.writer_flags & 8
    table = applied(
        store, table, UpdateConfig(UpdateMap({}, True), field_metadata={2: UpdateMap({"k": None})})
    )
    assert table.config == {}
    assert not table.writer_flags & 8
    assert table.schema.fields[2].metadata == {}
    with pytest.raises(InvalidInputError, match="no field with id 9"):
        applied(store, table, UpdateConfig(field_metadata={9: change}))


def test_a_primary_key_cannot_be_changed() -> None:
    store, table = memory_table()
    key = "lance-schema:unenforced-primary-key"
    table = applied(store, table, UpdateConfig(field_metadata={0: UpdateMap({key: "true"})}))
    for change in (UpdateMap({key: None}), UpdateMap({}, True), UpdateMap({key: "false"})):
        with pytest.raises(InvalidInputError, match="cannot be changed"):
            applied(store, table, UpdateConfig(field_metadata={0: change}))
    applied(store, table, UpdateConfig(field_metadata={0: UpdateMap({"x": "y"})}))


def stored(message: pb.Transaction) -> Operation:
    return decode_transaction(message.SerializeToString(), "x.txn").operation


def test_the_old_form_of_config_updates() -> None:
    message = pb.Transaction()
    message.update_config.upsert_values["a"] = "1"
    message.update_config.delete_keys.append("b")
    message.update_config.schema_metadata["s"] = "2"
    message.update_config.field_metadata[3].metadata["f"] = "4"
    assert stored(message) == UpdateConfig(
        UpdateMap({"a": "1", "b": None}), None, UpdateMap({"s": "2"}, True), {3: UpdateMap({"f": "4"}, True)}
    )
    message.update_config.config_updates.replace = True
    with pytest.raises(CorruptFileError, match=r"x\.txn: .*mixes"):
        stored(message)


# -- messages ------------------------------------------------------------------------------------------

OPERATIONS: list[Operation] = [
    Update(
        (4,),
        (fragment(),),
        (fragment(),),
        (1, 2),
        ((b"s" * 16, 7),),
        (3,),
        REWRITE_COLUMNS,
        KeyFilter((0,), None, b"\x01\x02", 16, 5, 0.5),
        {4: b"bitmap"},
    ),
    Update(inserted_rows=KeyFilter((0, 1), (3, 4))),
    Update(inserted_rows=KeyFilter((), ())),
    UpdateConfig(UpdateMap({"a": "", "b": None}, True), field_metadata={0: UpdateMap({})}),
    UpdateMemWalState(((b"s" * 16, 0),)),
    DataReplacement(((0, data_file([1])),)),
    Rewrite((RewriteGroup((fragment(),), ()),), (RewrittenIndex(b"o" * 16, b"n" * 16),)),
    Merge((fragment(),), SCHEMA, True),
    Project(SCHEMA),
    ReserveFragments(0),
    Append(()),
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.kind)
def test_operations_round_trip(operation: Operation) -> None:
    transaction = Transaction(3, "u", operation, {"k": "v"}, "tag")
    assert decode_transaction(encode_transaction(transaction), "t") == transaction


def test_older_and_newer_messages() -> None:
    message = pb.Transaction()
    message.update.updated_fragment_offsets[3].offsets.extend([5, 1])
    operation = stored(message)
    assert isinstance(operation, Update)
    assert operation.updated_offsets == {3: encode_roaring(np.array([1, 5], np.uint32))}
    message = pb.Transaction()
    message.rewrite.old_fragments.add(id=4)
    message.rewrite.new_fragments.add(id=5)
    operation = stored(message)
    assert isinstance(operation, Rewrite)
    assert operation.touched == {4}
    message = pb.Transaction()
    message.data_overlay.groups.add(fragment_id=2)
    assert stored(message) == DataOverlay(frozenset({2}), message.data_overlay.SerializeToString())
    composite = pb.Transaction(uuid="u").SerializeToString() + b"\xa2\x07\x00"  # field 116
    operation = decode_transaction(composite, "t").operation
    assert operation == Opaque("unknown", composite)
    message = pb.Transaction()
    message.project.schema.add(name="x", parent_id=-1, logical_type="hologram")
    operation = stored(message)
    assert isinstance(operation, Opaque)
    assert operation.name == "project"
    for one in (operation, DataOverlay(frozenset(), b""), UpdateMemWalState(())):
        with pytest.raises(UnsupportedError, match="pilum cannot"):
            applied(*memory_table(), one)


def test_index_entries_are_carried_through_everything() -> None:
    store, table = memory_table()
    entry = index("i", 0, files=[("page", 5)], created_at_ms=9, index_version=3)
    message = pb.IndexMetadata.FromString(entry.message)
    message.metadata["later"] = b"release"
    strange = replace(entry, message=message.SerializeToString())
    table = applied(store, table, CreateIndex((strange,)))
    for operation in (
        Append((fragment(),)),
        Delete((), (1,)),
        UpdateConfig(UpdateMap({"a": "b"})),
        ReserveFragments(2),
        Merge((), added_column()),
    ):
        if isinstance(operation, Merge):
            operation = replace(operation, fragments=table.fragments)
        table = applied(store, table, operation)
        assert table.indices[0].message == strange.message
    assert applied(store, table, Delete((), tuple(one.id for one in table.fragments))).indices
    assert applied(store, drive_latest(store), Overwrite((), SCHEMA)).indices == ()


def test_fragments_of_a_new_table_may_bring_nothing_else() -> None:
    store, _ = memory_table()
    with pytest.raises(InvalidInputError, match="no files"):
        drive(commit(store, Append((Fragment(0, (), 3),)), read_version=1))
    with pytest.raises(InvalidInputError, match="created by an overwrite"):
        drive(commit(MemoryStore(), Append(()), read_version=None))


def test_large_tables_are_not_decoded_to_add_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    store, table = memory_table(5)
    table = applied(store, table, ReserveFragments(3))
    plain = []
    operations = (
        Append((fragment(),)),
        UpdateConfig(UpdateMap({"a": "b"})),
        CreateIndex((index("i", 0),)),
        ReserveFragments(2),
        Append((replace(fragment(), id=6), fragment())),  # a reserved id goes in between
        Delete((), (0,)),
    )
    monkeypatch.setattr(codec, "_EAGER_FRAGMENTS", 2)
    for number, operation in enumerate(operations):
        before = drive_latest(store)
        assert before.pending is not None
        table = applied(store, before, operation)
        if number < 4:
            assert table.pending is not None
            assert table.num_rows == before.num_rows + (3 if number == 0 else 0)
        assert table.fragments == drive_latest(store).fragments
        assert table.max_fragment_id == drive_latest(store).max_fragment_id
        plain.append([one.id for one in table.fragments])
    assert plain[0] == [0, 1, 2, 3, 4, 8]
    assert plain[-1] == [1, 2, 3, 4, 6, 8, 11]
    assert table.indices
    with pytest.raises(InvalidInputError, match="no files"):
        applied(store, drive_latest(store), Append((Fragment(0, (), 3),)))
    twice = Append((replace(fragment(), id=8),))
    with pytest.raises(InvalidInputError, match="invalid table"):
        applied(store, drive_latest(store), twice)


def test_deletion_files_of_a_large_table_stay_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    store, table = memory_table(3)
    table = applied(store, table, Delete((deleting(store, table.fragments[0], 1),), ()))
    monkeypatch.setattr(codec, "_EAGER_FRAGMENTS", 2)
    table = applied(store, drive_latest(store), Append((fragment(),)))
    assert table.reader_flags & table.writer_flags & 1
    assert table.num_rows == 11
