"""Building the manifest of version N+1 from version N and a transaction (spec/table.md, section 8).

What every operation has in common: the new version number and time, our name as the writer, fragments in
order of their ids, no file without a live column, flags computed anew, and a fragment id counter that never goes
back.  Pure.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.schema import Schema
from pilum.table.codec import defer_fragments
from pilum.table.flags import DELETION_FILES, STABLE_ROW_IDS, TRANSACTION_FILES_DISABLED, compute_flags
from pilum.table.fragment_codec import check_fragments
from pilum.table.indices import covering_fields
from pilum.table.lineage import hides_lineage
from pilum.table.model import TOMBSTONE, Fragment, Manifest, WriterVersion
from pilum.table.operations import Clone, Merge, Operation, Overwrite
from pilum.table.patching import EncodedList, any_deletions, any_hidden_lineage
from pilum.table.transaction import Transaction

__all__ = ["build_manifest", "writer_version"]


@cache
def writer_version() -> WriterVersion:
    """How pilum signs the versions it writes."""
    # Not asked of `importlib.metadata`, which imports `email`, `zipfile` and `csv` for the answer.
    return WriterVersion("pilum", getattr(sys.modules["pilum"], "__version__", "0.0.0"))


def build_manifest(
    latest: Manifest | None,
    transaction: Transaction,
    timestamp_ns: int,
    *,
    stable_row_ids: bool = False,
    version: int | None = None,
) -> Manifest:
    """The manifest that a transaction leads to.

    Args:
        latest: newest version; None to create the table.
        transaction: already rebased onto ``latest``.
        timestamp_ns: time of the commit, nanoseconds since the epoch.
        stable_row_ids: rows of a new table get stable ids; so do those of an existing one through a merge
            whose fragments bring them.
        version: number of the new version, by default the next one; a detached version has its own.

    Raises:
        InvalidInputError: the operation does not fit the table, or would make an invalid version.
    """
    operation = transaction.operation
    if latest is None:
        if not isinstance(operation, Overwrite | Clone):
            raise InvalidInputError(
                f"a table is created by an overwrite, not by {type(operation).__name__.lower()}"
            )
        word = STABLE_ROW_IDS if stable_row_ids else 0
        latest = Manifest(version=0, schema=Schema((), {}), reader_flags=word, writer_flags=word)
    elif isinstance(operation, Clone):
        raise InvalidInputError("a clone makes a table of its own; there is one already")
    elif stable_row_ids and not latest.uses_stable_row_ids and isinstance(operation, Merge):
        latest = _with_stable_row_ids(latest, operation)
    number = version or latest.version + 1
    result, fragments, encoded = _apply(latest, operation, number)
    deletions = any(fragment.deletion_file is not None for fragment in fragments)
    if encoded is not None and not deletions and latest.reader_flags & DELETION_FILES:
        deletions = any_deletions(encoded)
    reader_flags, writer_flags = compute_flags(
        previous=result.writer_flags,
        deletion_files=deletions,
        config=bool(result.config),
        base_paths=bool(result.base_paths),
        covering_fields=any(covering_fields(index) for index in result.indices),
    )
    highest = result.max_fragment_id
    if fragments and (highest is None or fragments[-1].id > highest):
        highest = fragments[-1].id
    if result.uses_stable_row_ids:
        hidden = any(map(hides_lineage, fragments))
        if hidden or (encoded is not None and any_hidden_lineage(encoded)):
            raise UnsupportedError(
                "pilum cannot write to this table: its fragments keep row ids or row versions in hidden columns"
            )
    _check(fragments, result, reader_flags, writer_flags)
    disabled = writer_flags & TRANSACTION_FILES_DISABLED
    built = replace(
        result,
        fragments=fragments,
        timestamp_ns=timestamp_ns,
        max_fragment_id=highest,
        reader_flags=reader_flags,
        writer_flags=writer_flags,
        unseen=None,
        transaction_file="" if disabled else transaction.file_name,
        writer_version=writer_version(),
    )
    if encoded is not None:
        known = latest.fragments if latest.pending is None else ()
        defer_fragments(built, encoded, f"version {number}", known)
    return built


def _apply(
    latest: Manifest, operation: Operation, number: int
) -> tuple[Manifest, tuple[Fragment, ...], list[bytes] | None]:
    """The result of an operation, its fragments in order, and all of them encoded where that was possible.

    The fragments of a table are not decoded to change a few: the fragments are then those few.
    """
    encoded = latest.encoded_fragments
    # Tables of format 0.1 may have an id twice (see `check_fragments`).
    if encoded is not None and latest.max_fragment_id is not None and latest.data_version != (0, 1):
        scope = operation.scope(latest)
        part = None if scope is None else EncodedList.select(encoded, scope, f"version {number}")
        if part is not None:
            result = operation.apply(
                replace(latest, version=number, fragments=part.chosen, unseen=part.unseen)
            )
            fragments = _in_order(_without_dead_files(result.fragments))
            patched = part.patched(fragments)
            if patched is not None:
                return result, fragments, patched
    result = operation.apply(replace(latest, version=number))
    return result, _in_order(_without_dead_files(result.fragments)), None


def _with_stable_row_ids(latest: Manifest, operation: Merge) -> Manifest:
    """The table as one whose rows have stable ids, which a merge is about to bring (section 12.2)."""
    if latest.indices:
        raise InvalidInputError(
            f"index {latest.indices[0].name} knows rows by their address; drop the indices before rows get ids"
        )
    for fragment in operation.fragments:
        if fragment.row_ids is None or not fragment.physical_rows:
            raise InvalidInputError(f"merge: fragment {fragment.id} does not bring the ids of its rows")
    return replace(
        latest,
        reader_flags=latest.reader_flags | STABLE_ROW_IDS,
        writer_flags=latest.writer_flags | STABLE_ROW_IDS,
        next_row_id=sum(fragment.physical_rows for fragment in operation.fragments),
    )


def _check(fragments: tuple[Fragment, ...], result: Manifest, reader_flags: int, writer_flags: int) -> None:
    """Refuse to make a version that readers would refuse."""
    where = f"version {result.version}"
    try:
        check_fragments(fragments, result.data_version, reader_flags, writer_flags, where)
    except CorruptFileError as error:
        raise InvalidInputError(f"the commit would make an invalid table: {error}") from None
    for fragment in fragments:
        if not fragment.encoded and not fragment.files:
            raise InvalidInputError(
                f"the commit would make an invalid table: fragment {fragment.id} has no files"
            )


def _in_order(fragments: tuple[Fragment, ...]) -> tuple[Fragment, ...]:
    # Nearly always sorted already; sorted() then only compares.
    return tuple(sorted(fragments, key=lambda one: one.id))


def _without_dead_files(fragments: tuple[Fragment, ...]) -> tuple[Fragment, ...]:
    """Drop data files whose every column was superseded."""
    dead = {
        fields
        for fields in {file.fields for fragment in fragments for file in fragment.files}
        if fields and all(one == TOMBSTONE for one in fields)
    }
    if not dead:
        return fragments
    return tuple(
        [
            replace(fragment, files=tuple([file for file in fragment.files if file.fields not in dead]))
            if any(file.fields in dead for file in fragment.files)
            else fragment
            for fragment in fragments
        ]
    )
