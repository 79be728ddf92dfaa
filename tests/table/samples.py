"""The operations of the golden `conflicts.json`, made on a table in memory.

The table has three fragments of three rows, columns id, a, b (field ids 0, 1, 2) and is at version 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from pilum.io import Store
from pilum.schema import Field, Schema
from pilum.table import (
    Append,
    BasePath,
    CreateIndex,
    DataReplacement,
    Delete,
    Fragment,
    IndexMetadata,
    Manifest,
    Merge,
    Operation,
    Overwrite,
    Project,
    Restore,
    Rewrite,
    RewriteGroup,
    Update,
    UpdateBases,
    UpdateConfig,
    UpdateMap,
    new_index,
    write_deletions,
)
from pilum.table.indices import MEM_WAL, edit_index
from pilum.table.operations import REWRITE_COLUMNS
from tests.table.tables import SCHEMA, data_file, drive, fragment

Maker = Callable[[Store, Manifest], Operation]


def deleting(store: Store, fragment_: Fragment, *offsets: int) -> Fragment:
    """The fragment without some rows, its deletion file written."""
    return replace(fragment_, deletion_file=drive(write_deletions(store, fragment_, offsets, 1)))


def _deletes(which: int, *offsets: int, affected_rows: bool = True) -> Maker:
    def make(store: Store, table: Manifest) -> Operation:
        return Delete((deleting(store, table.fragments[which], *offsets),), (), "x", affected_rows)

    return make


def _moves(which: int, *offsets: int) -> Maker:
    def make(store: Store, table: Manifest) -> Operation:
        one = deleting(store, table.fragments[which], *offsets)
        return Update(updated_fragments=(one,), new_fragments=(fragment(len(offsets)),))

    return make


def columns(one: Fragment, field: int) -> Fragment:
    """The fragment after a column got a file of its own."""
    old = one.files[0]
    fields = tuple(-2 if each == field else each for each in old.fields)
    return replace(one, files=(replace(old, fields=fields), *one.files[1:], data_file([field])))


def _column_update(which: int) -> Maker:
    def make(store: Store, table: Manifest) -> Operation:
        changed = columns(table.fragments[which], 1)
        return Update(
            updated_fragments=(changed,),
            fields_modified=(1,),
            update_mode=REWRITE_COLUMNS,
            affected_rows=False,
        )

    return make


def _index(name: str, *fields: int, covers: tuple[int, ...] = (0, 1, 2)) -> IndexMetadata:
    return new_index(name, fields, 1, covers, details=("/lance.table.BTreeIndexDetails", b""))


def _mem_wal(store: Store, table: Manifest) -> Operation:
    entry = new_index(MEM_WAL, (), 1, (), details=("/lance.table.MemWalIndexDetails", b""))
    return CreateIndex((edit_index(entry, lambda message: message.ClearField("fragment_bitmap")),))


def _rewrite(*which: int) -> Maker:
    def make(store: Store, table: Manifest) -> Operation:
        old = tuple(table.fragments[one] for one in which)
        return Rewrite((RewriteGroup(old, (fragment(sum(one.physical_rows for one in old)),)),))

    return make


def added_column(nullable: bool = True) -> Schema:
    """The schema with one more column, field id 3."""
    return Schema((*SCHEMA.fields, Field(3, "c", "int32", nullable)))


def _add_column(store: Store, table: Manifest) -> Operation:
    fragments = tuple(replace(one, files=(*one.files, data_file([3]))) for one in table.fragments)
    return Merge(fragments, added_column(), preserves_nullability=True)


def _schema(**changes: Field | None) -> Schema:
    fields = [changes.get(one.name, one) for one in SCHEMA.fields]
    return Schema(tuple(one for one in fields if one is not None))


def _config(**maps: UpdateMap) -> Maker:
    return lambda store, table: UpdateConfig(**maps)


_A, _B = SCHEMA.fields[1], SCHEMA.fields[2]

OPERATIONS: dict[str, Maker] = {
    "append": lambda store, table: Append((fragment(),)),
    "delete id0 (f0)": _deletes(0, 0),
    "delete id1 (f0)": _deletes(0, 1),
    "delete id8 (f2)": _deletes(2, 2),
    "delete f0 no affected rows": _deletes(0, 1, affected_rows=False),
    "delete whole f0": lambda store, table: Delete((), (0,), "x"),
    "overwrite": lambda store, table: Overwrite(
        (fragment(),), Schema.from_arrow(pa.schema([("z", pa.int8())]))
    ),
    "create_index id": lambda store, table: CreateIndex((_index("i", 0),)),
    "create_index b": lambda store, table: CreateIndex((_index("j", 2),)),
    "rewrite f0..f2": _rewrite(0, 1, 2),
    "rewrite f2": _rewrite(2),
    "merge (add column)": _add_column,
    "merge (add null column)": lambda store, table: Merge(table.fragments, added_column(), True),
    "project rename": lambda store, table: Project(_schema(a=Field(1, "renamed", "int32")), True),
    "project drop b": lambda store, table: Project(_schema(b=None), True),
    "project not-null a": lambda store, table: Project(_schema(a=Field(1, "a", "int32", False))),
    "restore v1": lambda store, table: Restore(1),
    "update rows id0 (f0)": _moves(0, 0),
    "update rows id1 (f0)": _moves(0, 1),
    "update rows id8 (f2)": _moves(2, 2),
    "update columns f0": _column_update(0),
    "update columns f2": _column_update(2),
    "config k": _config(config=UpdateMap({"k": "1"})),
    "config k2": _config(config=UpdateMap({"k2": "1"})),
    "schema metadata": _config(schema_metadata=UpdateMap({"m": "1"})),
    "table metadata m": _config(table_metadata=UpdateMap({"m": "1"})),
    "field metadata a": lambda store, table: UpdateConfig(field_metadata={1: UpdateMap({"m": "1"})}),
    "replace b f0": lambda store, table: DataReplacement(((0, data_file([2])),)),
    "replace b f2": lambda store, table: DataReplacement(((2, data_file([2])),)),
    "add base one": lambda store, table: UpdateBases((BasePath(0, "/one", name="one"),)),
    "add base two": lambda store, table: UpdateBases((BasePath(0, "/two", name="two"),)),
    "mem_wal init": _mem_wal,
}
