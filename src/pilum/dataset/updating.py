"""Update by predicate: matching rows move, changed, to new fragments (spec/table.md, section 15.3).

```
scan the rows that match ─► new values ─► new data files ─┐
                  └─► their addresses ─► deletion files ──┴─► one commit (Update)
```

Old rows go and new ones come in the same version, so no reader sees a row twice or not at all.  In a table with
stable row ids the rows keep theirs: a new fragment brings the ids of the rows that moved into it.  Against a
concurrent delete or update of other rows the commit merges the deletion vectors; of the same rows, the update starts
over.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from pilum import arrays, imports
from pilum.dataset.deleting import without_rows
from pilum.dataset.fragment_writer import FragmentWriter, Place, remove_fragments
from pilum.dataset.retrying import starting_over
from pilum.dataset.writing import WriteOptions, append_version
from pilum.errors import CommitConflictError, ExecutionError, InvalidInputError, UnsupportedError
from pilum.io.postponed import PostponingStore
from pilum.query import binding
from pilum.query.projection import ROW_ADDRESS, ROW_ID
from pilum.query.request import ScanRequest
from pilum.query.scan import open_scan, plan_scan
from pilum.query.snapshot import Snapshot
from pilum.schema import Field, Schema
from pilum.table import CommitLock, Fragment, Manifest, RowIdSequence, Update, commit, encode_row_ids, known

__all__ = ["evaluated", "refuse_blobs", "update_rows"]


async def update_rows(
    snapshot: Snapshot,
    updates: Mapping[str, str],
    where: Any = None,
    *,
    conflict_retries: int = 10,
    retry_timeout: timedelta | None = None,
    commit_lock: CommitLock | None = None,
) -> tuple[Manifest, int]:
    """Give columns of the matching rows new values; returns the new manifest and the number of rows.

    Args:
        snapshot: the version to start from.
        updates: column -> SQL expression over the columns of the row as it was.
        where: SQL text or an Arrow expression; None for all rows.
        conflict_retries: how often to start over when others changed the same rows.
        retry_timeout: time after which it is not started over any more.
        commit_lock: held while the version is published.

    Raises:
        InvalidInputError: a column is unknown, an expression is no good, or a value does not fit its column.
        CommitConflictError: others kept changing the same rows.
    """
    if not updates:
        raise InvalidInputError("update: no column is given a new value")
    for text in updates.values():
        if not isinstance(text, str):
            raise TypeError(f"update: expressions are SQL text, got {text!r}")
    return await starting_over(
        snapshot,
        lambda version: _update_once(version, updates, where, commit_lock),
        what="update",
        conflict_retries=conflict_retries,
        retry_timeout=retry_timeout,
    )


async def _update_once(
    snapshot: Snapshot, updates: Mapping[str, str], where: Any, commit_lock: CommitLock | None
) -> tuple[Manifest, int]:
    into = PostponingStore(snapshot.store)
    try:
        return await _update_into(into, snapshot, updates, where, commit_lock)
    finally:
        await into.stop()


async def _update_into(
    into: PostponingStore,
    snapshot: Snapshot,
    updates: Mapping[str, str],
    where: Any,
    commit_lock: CommitLock | None,
) -> tuple[Manifest, int]:
    manifest = snapshot.manifest
    changes = _Changes.of(manifest.schema, updates)
    refuse_blobs(manifest.schema, "update")
    version = append_version(manifest, WriteOptions(mode="append"))
    stable = manifest.uses_stable_row_ids
    request = ScanRequest(filter=where, with_row_address=True, with_row_id=stable)
    found: list[tuple[str, Any]] = []
    writer = FragmentWriter([Place(into)], manifest.schema, version)
    try:
        async with aclosing(await open_scan(plan_scan(snapshot, request))) as stream:
            async for batch in stream:
                for name in (ROW_ADDRESS, ROW_ID) if stable else (ROW_ADDRESS,):
                    found.append((name, arrays.to_numpy(batch.column(name))))
                await writer.write(changes.applied(batch))
        added = await writer.finish()
        addresses = _joined([values for name, values in found if name == ROW_ADDRESS])
        if stable:
            added = _with_ids(added, _joined([values for name, values in found if name == ROW_ID]))
        updated, removed = await without_rows(snapshot, addresses, into)
    except BaseException:
        await writer.abort()
        raise
    operation = Update(
        removed_fragment_ids=tuple(removed),
        updated_fragments=tuple(updated),
        new_fragments=tuple(added),
        fields_for_preserving_frag_bitmap=changes.field_ids,
    )
    try:
        committed = await commit(
            snapshot.store,
            operation,
            read_version=manifest.version,
            commit_lock=commit_lock,
            base=known(snapshot.store, manifest),
            before=into.settle,
            into=into,
        )
    except (CommitConflictError, InvalidInputError, UnsupportedError):
        # The commit certainly did not happen; after any other error it may have.
        await remove_fragments([Place(snapshot.store)], added)
        raise
    return committed, len(addresses)


def _joined(values: list[Any]) -> Any:
    return np.concatenate([np.empty(0, dtype=np.uint64), *values])


def _with_ids(fragments: list[Fragment], ids: Any) -> list[Fragment]:
    """New fragments with the ids of the rows that moved there."""
    result, at = [], 0
    for fragment in fragments:
        moved = RowIdSequence.of_array(ids[at : at + fragment.physical_rows])
        result.append(replace(fragment, row_ids=encode_row_ids(moved)))
        at += fragment.physical_rows
    return result


def refuse_blobs(schema: Schema, what: str) -> None:
    """Rows with blobs are read as descriptions of these, which cannot be written again.

    Raises:
        UnsupportedError: there is a column of blobs.
    """
    for field in schema.walk():
        if field.is_blob:
            raise UnsupportedError(f"{what}: column {field.name!r} holds blobs, which pilum cannot move yet")


@dataclass(frozen=True, slots=True)
class _Changes:
    """New values of columns.

    Attributes:
        expressions: bound expressions by the name of their column.
        fields: the columns.
        field_ids: ids of the columns and of the fields below them.
    """

    expressions: Mapping[str, Any]
    fields: Mapping[str, Field]
    field_ids: tuple[int, ...]

    @classmethod
    def of(cls, schema: Schema, updates: Mapping[str, str]) -> _Changes:
        """Bind the expressions.

        Raises:
            InvalidInputError: a column is unknown, an expression cannot be bound, or its type does not fit.
        """
        known = {field.name: field for field in schema.fields}
        unknown = [name for name in updates if name not in known]
        if unknown:
            raise InvalidInputError(
                f"update: no column named {unknown[0]!r} (columns: {', '.join(list(known)[:20])})"
            )
        bound = dict(zip(updates, binding.parse_projection(updates, schema), strict=True))
        fields = {name: known[name] for name in updates}
        ids = sorted(one.id for field in fields.values() for one in field.walk())
        changes = cls(bound, fields, tuple(ids))
        for name in updates:  # values that never fit are refused even when no row matches
            if not bound[name].columns:
                evaluated(bound[name], pa.record_batch({"": pa.nulls(1)}), fields[name])
        return changes

    def applied(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with their new values; columns beyond the table's are left to the writer to skip."""
        before = batch
        for name, expression in self.expressions.items():
            position = batch.schema.get_field_index(name)
            values = evaluated(expression, before, self.fields[name])
            batch = batch.set_column(position, self.fields[name].to_arrow(), values)
        return batch


def evaluated(expression: Any, batch: pa.RecordBatch, field: Field) -> Any:
    """Values of an expression, as the type of a column.

    Raises:
        InvalidInputError: they do not fit.
    """
    wanted = field.arrow_type
    try:
        values = expression.evaluate(batch)
        return values if values.type.equals(wanted) else _cast(values, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        if isinstance(error, ExecutionError):
            raise
        raise InvalidInputError(
            f"column {field.name!r} is {wanted}, the new value does not fit: {error}"
        ) from error


def _cast(values: Any, wanted: Any) -> Any:
    # As in SQL, digits behind the point are cut off; everything else has to fit.
    compute = imports.load("pyarrow.compute")
    options = compute.CastOptions(wanted, allow_float_truncate=True)
    return compute.cast(values, options=options)
