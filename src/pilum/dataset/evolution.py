"""Columns that come, change and go (spec/table.md, sections 15.5 and 15.6).

| call | data | commit |
|---|---|---|
| `add_columns` | one new file for every fragment; none when all values are null | Merge |
| `merge` | one new file for every fragment, joined by a key | Merge |
| `alter_columns` | a cast writes one new file for every fragment, a rename none | Merge or Project |
| `drop_columns` | none; the values stay in their files until these are rewritten | Project |

All of them speak for the whole table: beside a concurrent change of rows a Merge is refused as a conflict.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pilum import arrays, distinct, imports, table
from pilum.dataset import column_files, fragment_writer, inputs, schema_changes, updating
from pilum.dataset import transforms as transforming
from pilum.dataset.handle import Handle
from pilum.errors import CommitConflictError, InvalidInputError, UnsupportedError
from pilum.query.request import ScanRequest
from pilum.query.scan import count, plan_scan
from pilum.query.snapshot import Snapshot
from pilum.schema import Field, Schema
from pilum.table import TOMBSTONE, Fragment

if TYPE_CHECKING:
    from pilum.dataset.transforms import Joined, Transform
    from pilum.table import Operation

__all__ = ["Evolution", "add_to_fragment", "joined_to", "replace_in_fragment"]


class Evolution(Handle):
    """The calls of `AsyncLanceDataset` that change its columns."""

    async def add_columns(
        self,
        transforms: Any,
        read_columns: Sequence[str] | None = None,
        reader_schema: pa.Schema | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Add columns; see `pilum.LanceDataset.add_columns`."""
        empty = _null_columns(transforms)
        if empty is not None:
            await self._add_null_columns(empty)
            return
        transform = transforming.transform_of(transforms, read_columns, reader_schema, batch_size)
        manifest = self.manifest
        fragments, schema = await _added(self.snapshot, manifest.fragments, transform)
        await self._commit_files(table.Merge(tuple(fragments), schema, preserves_nullability=True), fragments)

    async def _add_null_columns(self, added: pa.Schema) -> None:
        for field in added:
            if not field.nullable:
                raise InvalidInputError(f"a column of nulls must be nullable, {field.name!r} is not")
        manifest = self.manifest
        if manifest.data_version == (0, 1):
            raise UnsupportedError("columns without values need files of format 2.0 or later")
        schema, _ = schema_changes.with_columns(manifest.schema, added, table.max_field_id(manifest) + 1)
        await self._commit(table.Merge(manifest.fragments, schema, preserves_nullability=True))

    async def merge(
        self, data_obj: Any, left_on: str, right_on: str | None = None, schema: pa.Schema | None = None
    ) -> None:
        """Add the columns of another table by a key; see `pilum.LanceDataset.merge`."""
        joined = joined_to(data_obj, left_on, right_on, schema)
        fragments, merged = await _added(self.snapshot, self.manifest.fragments, joined)
        await self._commit_files(table.Merge(tuple(fragments), merged, preserves_nullability=True), fragments)

    async def drop_columns(self, columns: Iterable[str]) -> None:
        """Drop columns; see `pilum.LanceDataset.drop_columns`."""
        if isinstance(columns, str):
            raise TypeError("drop_columns takes a list of names")
        schema = schema_changes.without_columns(self.manifest.schema, columns)
        await self._commit(table.Project(schema, preserves_nullability=True))

    async def alter_columns(self, *alterations: Mapping[str, Any]) -> None:
        """Rename columns, change whether they allow nulls, give them another type."""
        manifest = self.manifest
        parsed = [schema_changes.Alteration.parse(one) for one in alterations]
        outcome = schema_changes.altered(manifest.schema, parsed, table.max_field_id(manifest) + 1)
        for path in outcome.required:
            await self._refuse_nulls(path)
        if not outcome.cast:
            await self._commit(table.Project(outcome.schema, preserves_nullability=not outcome.required))
            return
        for index in manifest.indices:
            used = outcome.replaced.intersection(index.fields)
            if used:
                raise InvalidInputError(
                    f"alter_columns: index {index.name!r} uses column "
                    f"{manifest.schema.field_by_id(min(used)).name!r}; drop the index first"
                )
        fragments = list(manifest.fragments)
        try:
            for path, way in outcome.cast:
                fragments = await self._cast(fragments, path, way)
        except BaseException:
            await self._discard(fragments)
            raise
        await self._commit_files(
            table.Merge(tuple(fragments), outcome.schema, preserves_nullability=True), fragments
        )

    async def _refuse_nulls(self, path: tuple[str, ...]) -> None:
        quoted = ".".join(f"`{part}`" for part in path)
        request = ScanRequest(columns=[], filter=f"{quoted} IS NULL")
        if await count(plan_scan(self.snapshot, request)):
            raise InvalidInputError(f"column {'.'.join(path)!r} holds nulls and cannot be made required")

    async def _cast(
        self, fragments: list[Fragment], path: tuple[str, ...], way: tuple[Field, ...]
    ) -> list[Fragment]:
        snapshot = self.snapshot
        if len(way) > 1:
            self._check_member(".".join(path), way)
        schema = Schema((_only_member(way),), {})

        async def values(fragment: Fragment) -> AsyncGenerator[pa.RecordBatch, None]:
            async for batch in transforming.read_live(
                snapshot, fragment, ["`" + path[0].replace("`", "``") + "`"]
            ):
                array = _cast_member(batch.column(0), path[1:], schema.fields[0])
                yield pa.RecordBatch.from_arrays([array], schema=schema.to_arrow())

        return await column_files.add_files(snapshot, fragments, schema, values)

    def _check_member(self, path: str, way: Sequence[Field]) -> None:
        """A member of a column gets a file of its own, with the structs and lists around it."""
        version = self.manifest.data_version
        if version < (2, 1):
            raise UnsupportedError(
                f"alter_columns: {path!r}: members of columns are cast in tables of format 2.1 or later, this one "
                f"is {version[0]}.{version[1]}"
            )
        for above in way[:-1]:
            kind = above.arrow_type
            plain = pa.types.is_struct(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
            if above.is_leaf or not plain:
                raise UnsupportedError(f"alter_columns: {path!r}: a member of {above.name!r}, {kind}")

    async def _commit_files(self, operation: Operation, fragments: Sequence[Fragment]) -> None:
        try:
            await self._commit(operation)
        except (CommitConflictError, InvalidInputError):
            # The commit certainly did not happen; after any other error it may have.
            await self._discard(fragments)
            raise

    async def _discard(self, fragments: Sequence[Fragment]) -> None:
        await fragment_writer.remove_fragments(
            [fragment_writer.Place(self.store)], _only_new(self.manifest.fragments, fragments)
        )


def _only_new(before: Sequence[Fragment], after: Sequence[Fragment]) -> list[Fragment]:
    """The fragments with the files that were not there before."""
    known = {one.id: {file.path for file in one.files} for one in before}
    return [
        replace(one, files=tuple([file for file in one.files if file.path not in known.get(one.id, ())]))
        for one in after
    ]


def _null_columns(given: Any) -> pa.Schema | None:
    """The schema of columns without values, when that is what is given."""
    if isinstance(given, pa.Field):
        return pa.schema([given])
    if isinstance(given, pa.Schema):
        return given
    if isinstance(given, list) and given and all(isinstance(one, pa.Field) for one in given):
        return pa.schema(given)
    return None


def joined_to(data: Any, left_on: str, right_on: str | None, schema: pa.Schema | None) -> Joined:
    """The columns of another table as new columns."""
    stream = inputs.read_input(data, schema)
    table = pa.Table.from_batches(list(stream.batches), schema=stream.schema)
    return transforming.Joined(table, left_on, left_on if right_on is None else right_on)


async def _added(
    snapshot: Snapshot, fragments: Sequence[Fragment], transform: Transform
) -> tuple[list[Fragment], Schema]:
    """Fragments with a file for new columns, and the schema with them."""
    manifest = snapshot.manifest
    arrow = await transform.schema(snapshot, fragments)
    if not arrow.names:
        raise InvalidInputError("there are no new columns")
    schema, new = schema_changes.with_columns(manifest.schema, arrow, table.max_field_id(manifest) + 1)
    updating.refuse_blobs(new, "add_columns")
    made = await column_files.add_files(snapshot, fragments, new, lambda one: transform.values(snapshot, one))
    try:
        transform.end()
    except InvalidInputError:
        await fragment_writer.remove_fragments(
            [fragment_writer.Place(snapshot.store)], _only_new(fragments, made)
        )
        raise
    return made, schema


def _only_member(way: Sequence[Field]) -> Field:
    """The first field of a way with nothing but the members on it."""
    return way[0] if len(way) == 1 else way[0].with_children((_only_member(way[1:]),))


def _cast_member(array: Any, path: Sequence[str], wanted: Field) -> Any:
    """A column with nothing but the member at the end of a path, which is cast; what is around it stays the same."""
    if not path:
        return _cast(array, wanted)
    (member,) = wanted.children
    if pa.types.is_struct(array.type):
        inner = _cast_member(array.field(array.type.get_field_index(path[0])), path[1:], member)
        mask = arrays.from_numpy(~arrays.valid(array)) if array.null_count else None
        return pa.StructArray.from_arrays([inner], fields=list(wanted.arrow_type), mask=mask)
    inner = _cast_member(array.values, path[1:], member)
    return pa.Array.from_buffers(
        wanted.arrow_type, len(array), array.buffers()[:2], array.null_count, array.offset, [inner]
    )


def _cast(array: Any, wanted: Field) -> Any:
    compute = imports.load("pyarrow.compute")
    try:
        return compute.cast(array, wanted.arrow_type)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"column {wanted.name!r} cannot be cast: {error}") from error


# -- one fragment, not committed -----------------------------------------------------------------------


async def add_to_fragment(
    snapshot: Snapshot, fragment: Fragment, transform: Transform
) -> tuple[Fragment, Schema]:
    """A fragment with a file for new columns, and the schema that goes with it."""
    (made,), schema = await _added(snapshot, [fragment], transform)
    return made, schema


async def replace_in_fragment(
    snapshot: Snapshot, fragment: Fragment, joined: Joined, left_on: str
) -> tuple[Fragment, list[int], bytes]:
    """A fragment in which the rows that match another table have the values of that table.

    Returns:
        The fragment, with a new file for the columns; the ids of the fields with new values; and the offsets of
        the rows, as a Roaring bitmap.

    Raises:
        InvalidInputError: the dataset does not have a column, or its type does not fit.
    """
    stored = snapshot.manifest.schema
    given = await joined.schema(snapshot, [fragment])
    for field in given:
        known = schema_changes.path_of(stored, field.name)[-1]
        if not field.type.equals(known.arrow_type):
            raise InvalidInputError(
                f"column {field.name!r} is {field.type}, the dataset has {known.arrow_type}"
            )
    schema = stored.project(given.names)
    updating.refuse_blobs(schema, "update_columns")
    compute = imports.load("pyarrow.compute")
    deleted = await snapshot.deletions(fragment)
    live = distinct.difference(np.arange(fragment.physical_rows, dtype=np.uint32), deleted)
    offsets = []
    at = 0
    async with column_files.ColumnFile(snapshot, fragment, schema) as file:
        columns = {str(number): name for number, name in enumerate([left_on, *given.names])}
        async for batch in transforming.read_live(snapshot, fragment, columns):
            rows = joined.matches(batch.column(0))
            hit = rows.is_valid()
            new = joined.columns_at(rows)
            merged = [
                compute.if_else(hit, new.column(name), batch.column(number))
                for number, name in enumerate(given.names, start=1)
            ]
            await file.write(pa.RecordBatch.from_arrays(merged, names=given.names))
            offsets.append(live[at : at + batch.num_rows][arrays.to_numpy(hit)])
            at += batch.num_rows
        added = await file.finish()
    taken = frozenset(added.fields)
    files = [
        replace(one, fields=tuple([TOMBSTONE if each in taken else each for each in one.fields]))
        if not taken.isdisjoint(one.fields)
        else one
        for one in fragment.files
    ]
    changed = replace(fragment, files=(*files, added))
    bitmap = table.encode_roaring(np.concatenate([np.empty(0, np.uint32), *offsets]))
    return changed, sorted(taken), bitmap
