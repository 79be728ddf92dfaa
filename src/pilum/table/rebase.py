"""Moving an operation onto a newer version (spec/table.md, section 9.3).

Most operations need nothing: the manifest is simply built from the newest version.  What remains:

* A delete or an update carries whole deletion vectors.  When another writer deleted rows of the same fragment
  meanwhile, both vectors are merged into a new file, provided that the two did not take the same row.
* An update of columns carries whole lists of data files; files that others put there meanwhile are kept.
* A new index loses the fragments whose indexed column was rewritten meanwhile.
* A projection carries a whole schema; field metadata that others changed meanwhile is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from pilum import distinct
from pilum.errors import CommitConflictError, NotFoundError
from pilum.io import Store
from pilum.schema import Field, Schema
from pilum.table.deletions import Offsets, deletion_path, read_deletions, write_deletions
from pilum.table.indices import fields_inside, uncover
from pilum.table.model import BITMAP, TOMBSTONE, DataFile, Fragment, Manifest
from pilum.table.operations import REWRITE_COLUMNS, CreateIndex, Delete, Operation, Project, Restore, Update
from pilum.table.transaction import Transaction
from pilum.table.versions import load_manifest

__all__ = ["Rebased", "rebase"]


@dataclass(frozen=True, slots=True)
class Rebased:
    """A transaction that fits the newest version.

    Attributes:
        transaction: ready to be built and published.
        written: keys of files made for it, superfluous when it is not published.
    """

    transaction: Transaction
    written: list[str] = field(default_factory=list)


async def rebase(
    store: Store, transaction: Transaction, latest: Manifest, others: Sequence[Operation] = ()
) -> Rebased:
    """Adapt a transaction to the newest version, which its operation does not conflict with.

    Args:
        store: the table's store.
        transaction: as it was computed, on its own ``read_version``.
        latest: the newest version.
        others: what was committed since ``read_version``.

    Raises:
        CommitConflictError: a retryable conflict that only the data shows.
        NotFoundError: a version to be restored is gone.
    """
    operation = transaction.operation
    if isinstance(operation, Restore):
        content = await load_manifest(store, operation.version)
        return Rebased(replace(transaction, operation=replace(operation, content=content)))
    if transaction.read_version == latest.version:
        return Rebased(transaction)

    async def base() -> Manifest:
        try:
            return await load_manifest(store, transaction.read_version)
        except NotFoundError:
            reason = f"version {transaction.read_version}, which it was computed on, is gone"
            raise _conflict(operation.kind, reason) from None

    if isinstance(operation, Delete | Update):
        return await _rebase_rows(store, transaction, operation, latest, base)
    if isinstance(operation, CreateIndex):
        return Rebased(replace(transaction, operation=_rebase_index(operation, others)))
    if isinstance(operation, Project):
        schema = _rebase_schema(operation.schema, (await base()).schema, latest.schema)
        return Rebased(replace(transaction, operation=replace(operation, schema=schema)))
    return Rebased(transaction)


def _conflict(kind: str, reason: str) -> CommitConflictError:
    return CommitConflictError(
        f"{kind} cannot be moved to the newest version: {reason}; run it again on the newest version",
        retryable=True,
    )


# -- rows ----------------------------------------------------------------------------------------------


async def _rebase_rows(
    store: Store,
    transaction: Transaction,
    operation: Delete | Update,
    latest: Manifest,
    base: Callable[[], Awaitable[Manifest]],
) -> Rebased:
    current = latest.fragment_by_id()
    missing = operation.touched - current.keys()
    if missing:
        raise _conflict(operation.kind, f"fragment {min(missing)} is gone in version {latest.version}")
    updated: list[Fragment] = []
    removed = sorted(operation.removed)
    written: list[str] = []
    columns = isinstance(operation, Update) and operation.update_mode == REWRITE_COLUMNS
    before = await base() if operation.updated_fragments else None
    fragments_before = {} if before is None else before.fragment_by_id()
    for mine in operation.updated_fragments:
        now, old = current[mine.id], fragments_before.get(mine.id)
        if old is None:
            raise _conflict(
                operation.kind, f"fragment {mine.id} did not exist in the version it was computed on"
            )
        files = _join_files(old.files, mine.files, now.files) if columns else now.files
        if now.deletion_file == old.deletion_file:
            updated.append(_with(now, files, mine))
            continue
        if mine.deletion_file == old.deletion_file:
            updated.append(_with(now, files, now))
            continue
        assert before is not None
        merged = await _merge(store, operation.kind, mine, old, now, before, latest)
        if len(merged) == now.physical_rows:
            removed.append(mine.id)
            continue
        file = await write_deletions(store, now, merged, latest.version, file_type=BITMAP)
        written.append(deletion_path(mine.id, file))
        updated.append(replace(now, files=files, deletion_file=file))
    rebased: Operation
    if isinstance(operation, Delete):
        rebased = replace(operation, updated_fragments=tuple(updated), deleted_fragment_ids=tuple(removed))
    else:
        rebased = replace(operation, updated_fragments=tuple(updated), removed_fragment_ids=tuple(removed))
    return Rebased(replace(transaction, read_version=latest.version, operation=rebased), written)


def _with(now: Fragment, files: tuple[DataFile, ...], deletions_of: Fragment) -> Fragment:
    """The current fragment with the given files and another one's deletions."""
    if files == now.files and deletions_of.deletion_file == now.deletion_file:
        return now
    return replace(now, files=files, deletion_file=deletions_of.deletion_file)


async def _merge(
    store: Store, kind: str, mine: Fragment, old: Fragment, now: Fragment, before: Manifest, latest: Manifest
) -> Offsets:
    already = await read_deletions(store, old, bases=before.base_paths)
    affected = distinct.difference(await read_deletions(store, mine, bases=before.base_paths), already)
    existing = await read_deletions(store, now, bases=latest.base_paths)
    if len(distinct.intersection(affected, existing)):
        raise _conflict(kind, f"another writer deleted or moved the same rows of fragment {mine.id}")
    return distinct.union(existing, affected)


def _join_files(
    old: tuple[DataFile, ...], mine: tuple[DataFile, ...], now: tuple[DataFile, ...]
) -> tuple[DataFile, ...]:
    """The current files with the columns that I gave new files."""
    if now == old:
        return mine
    known = {(file.path, file.base_id) for file in old}
    added = [file for file in mine if (file.path, file.base_id) not in known]
    taken = frozenset(one for file in added for one in file.fields)
    files = [
        replace(file, fields=tuple([TOMBSTONE if one in taken else one for one in file.fields]))
        if not taken.isdisjoint(file.fields)
        else file
        for file in now
    ]
    return (*files, *added)


# -- indices and schemas -------------------------------------------------------------------------------


def _rebase_index(operation: CreateIndex, others: Sequence[Operation]) -> CreateIndex:
    indices = operation.new_indices
    for other in others:
        if isinstance(other, Update) and other.fields_modified:
            changed = frozenset(other.fields_modified)
            fragments = [one.id for one in other.updated_fragments]
            indices = tuple(
                [
                    one if changed.isdisjoint(fields_inside(one)) else uncover(one, fragments)
                    for one in indices
                ]
            )
    return operation if indices == operation.new_indices else replace(operation, new_indices=indices)


def _rebase_schema(mine: Schema, old: Schema, now: Schema) -> Schema:
    if old == now and old.metadata == now.metadata:
        return mine
    before = {one.id: one.metadata for one in old.walk()}
    current = {one.id: one.metadata for one in now.walk()}

    def moved(one: Field) -> Field:
        metadata = one.metadata
        if metadata == before.get(one.id) and one.id in current:
            metadata = current[one.id]
        children = tuple([moved(child) for child in one.children])
        return Field(one.id, one.name, one.logical_type, one.nullable, metadata, children, one.parent_id)

    metadata = now.metadata if mine.metadata == old.metadata else mine.metadata
    return Schema(tuple([moved(one) for one in mine.fields]), metadata)
