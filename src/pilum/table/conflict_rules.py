"""The conditions behind the letters of the conflict matrix (spec/table.md, section 9.2).

Each is a pure function of my operation, the committed one, and the verdict of the cell, and returns the final
verdict.  A condition that holds in either order is written once and looks at which is which.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pilum.table import operations as ops
from pilum.table.indices import FRAGMENT_REUSE, MEM_WAL, covered_fragments, fields_inside
from pilum.table.model import IndexMetadata

__all__ = ["CONDITIONS", "Verdict"]


class Verdict(enum.Enum):
    """Outcome for one pair of operations."""

    OK = "."
    RETRYABLE = "R"
    INCOMPATIBLE = "X"


OK, RETRYABLE, INCOMPATIBLE = Verdict.OK, Verdict.RETRYABLE, Verdict.INCOMPATIBLE

RowChange = ops.Delete | ops.Update


def _retry_if(condition: bool) -> Verdict:
    return RETRYABLE if condition else OK


# -- f: fragments --------------------------------------------------------------------------------------


def _fragments(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """f: only fragments that both touch matter; deletions in one fragment can be merged."""
    if isinstance(mine, ops.Delete | ops.Update) and isinstance(theirs, ops.Delete | ops.Update):
        return _two_row_changes(mine, theirs)
    if (
        isinstance(mine, ops.Rewrite)
        and isinstance(theirs, ops.Rewrite)
        and _reuses(mine)
        and _reuses(theirs)
    ):
        return RETRYABLE  # q
    return _retry_if(not _touched(mine).isdisjoint(_touched(theirs)))


def _reuses(rewrite: ops.Rewrite) -> bool:
    return rewrite.frag_reuse_index is not None


def _rewrites_columns(change: RowChange) -> bool:
    return isinstance(change, ops.Update) and change.update_mode == ops.REWRITE_COLUMNS


def _touched(operation: Any) -> frozenset[int]:
    if isinstance(operation, ops.DataReplacement):
        return frozenset(one for one, _ in operation.replacements)
    touched: frozenset[int] = operation.touched
    return touched


def _two_row_changes(mine: RowChange, theirs: RowChange) -> Verdict:
    if isinstance(mine, ops.Update) and isinstance(theirs, ops.Update) and _may_insert_same_key(mine, theirs):
        return RETRYABLE
    changed = {fragment.id: fragment.files for fragment in theirs.updated_fragments}
    removed = theirs.removed
    common = mine.touched & (changed.keys() | removed)
    if not common:
        return OK
    # A fragment that one of us removes, or whose files they replaced, leaves nothing to merge.
    mergeable = (
        mine.affected_rows
        and not _rewrites_columns(mine)
        and common.isdisjoint(removed)
        and common.isdisjoint(mine.removed)
    )
    files = {fragment.id: fragment.files for fragment in mine.updated_fragments}
    return _retry_if(not (mergeable and all(changed[one] == files[one] for one in common)))


def _may_insert_same_key(mine: ops.Update, theirs: ops.Update) -> bool:
    """k: two inserts by primary key must not bring the same key."""
    if mine.inserted_rows is None:
        return False
    return theirs.inserted_rows is None or mine.inserted_rows.may_share_keys(theirs.inserted_rows)


def _inserted_keys(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """k: an append may have brought a key that an insert by primary key did not see."""
    return _retry_if(mine.inserted_rows is not None)


# -- n, m, g, u, o: schema and configuration -----------------------------------------------------------


def _nullability(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """n: a schema change that may have made a column required needs new rows to be checked again."""
    change = mine if isinstance(mine, ops.Project | ops.Merge) else theirs
    return verdict if change.preserves_nullability else RETRYABLE


def _merge_and_index(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """m: columns can be added beside a new index, but not beside a new write-ahead log."""
    index = mine if isinstance(mine, ops.CreateIndex) else theirs
    return _retry_if(MEM_WAL in _names(index.new_indices))


def _merge_and_metadata(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """g: a merge brings a whole schema and would undo a change to its metadata."""
    config = mine if isinstance(mine, ops.UpdateConfig) else theirs
    return _retry_if(config.touches_schema)


def _metadata(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """u: two changes of one key, or of a schema that the other one replaces."""
    if isinstance(mine, ops.UpdateConfig) and isinstance(theirs, ops.UpdateConfig):
        clash = _same_entries(mine, theirs)
    else:
        config, other = (mine, theirs) if isinstance(mine, ops.UpdateConfig) else (theirs, mine)
        clash = config.touches_schema or (
            isinstance(other, ops.Overwrite) and bool(_config_keys(config) & set(other.config_upserts))
        )
    return INCOMPATIBLE if clash else OK


def _same_entries(mine: ops.UpdateConfig, theirs: ops.UpdateConfig) -> bool:
    tables = mine.table_metadata, theirs.table_metadata
    return bool(
        _set_keys(mine) & _config_keys(theirs)
        or _set_keys(theirs) & _config_keys(mine)
        or (mine.config and mine.config.replace and theirs.config)
        or (theirs.config and theirs.config.replace and mine.config)
        or (tables[0] is not None and tables[1] is not None and tables[0].overlaps(tables[1]))
        or (mine.schema_metadata is not None and theirs.schema_metadata is not None)
        or not mine.field_metadata.keys().isdisjoint(theirs.field_metadata)
    )


def _config_keys(config: ops.UpdateConfig) -> set[str]:
    return set(config.config.entries) if config.config is not None else set()


def _set_keys(config: ops.UpdateConfig) -> set[str]:
    if config.config is None:
        return set()
    return {key for key, value in config.config.entries.items() if value is not None}


def _overwrites(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """o: two overwrites, or an overwrite and a config change, must not set the same config key."""
    keys = set(theirs.config_upserts) if isinstance(theirs, ops.Overwrite) else _config_keys(theirs)
    return INCOMPATIBLE if keys & set(mine.config_upserts) else verdict


# -- s, b, i: indices ----------------------------------------------------------------------------------


def _names(indices: Iterable[IndexMetadata]) -> set[str]:
    return {index.name for index in indices}


def _same_name(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """s: two new indices of one name."""
    return _retry_if(bool(_names(mine.new_indices) & _names(theirs.new_indices)))


def _index_and_rewrite(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """b: addresses in a new index are those of fragments that a rewrite removes."""
    index, rewrite = (mine, theirs) if isinstance(mine, ops.CreateIndex) else (theirs, mine)
    coverage = [covered_fragments(one) for one in index.new_indices if one.name != FRAGMENT_REUSE]
    if any(covered is None for covered in coverage):
        return RETRYABLE
    if not _reuses(rewrite):
        touched = rewrite.touched
        return _retry_if(any(covered and not touched.isdisjoint(covered) for covered in coverage))
    groups = [frozenset(one.id for one in group.old_fragments) for group in rewrite.groups]
    return _retry_if(
        any(covered and ids & covered and not ids <= covered for covered in coverage for ids in groups)
    )


def _index_and_replacement(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """i: the values in a new index must be those of the column."""
    index, replaced = (mine, theirs) if isinstance(mine, ops.CreateIndex) else (theirs, mine)
    return _retry_if(any(not replaced.fields.isdisjoint(fields_inside(one)) for one in index.new_indices))


# -- d, v: data replacement ----------------------------------------------------------------------------


def _replacement_target(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """d: the fragments, rows and columns for which new files were written must still be there."""
    targets = _touched(mine)
    if isinstance(theirs, ops.Project):
        if mine.fields - {field.id for field in theirs.schema.walk()}:
            return INCOMPATIBLE
        return _retry_if(not theirs.preserves_nullability)
    if targets & theirs.removed:
        return INCOMPATIBLE
    if isinstance(theirs, ops.Delete) or targets.isdisjoint(theirs.touched):
        return OK
    return _retry_if(not _rewrites_columns(theirs) or not mine.fields.isdisjoint(theirs.fields_modified))


def _same_column(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """v: the same column of the same fragment."""
    return _retry_if(
        not _touched(mine).isdisjoint(_touched(theirs)) and not mine.fields.isdisjoint(theirs.fields)
    )


# -- a, c, w, e: bases, write-ahead log, overlays ------------------------------------------------------


def _same_base(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """a: two bases of the same id, name or path."""
    clash = any(
        (one.id and one.id == other.id)
        or (one.name is not None and one.name == other.name)
        or one.path == other.path
        for one in mine.new_bases
        for other in theirs.new_bases
    )
    return INCOMPATIBLE if clash else OK


def _same_shard(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """c: generations of a shard of the write-ahead log enter the table in their order."""
    if isinstance(theirs, ops.CreateIndex):
        return _retry_if(MEM_WAL in _names(theirs.new_indices))
    committed = dict(theirs.compacted_sstables)
    result = OK
    for shard, generation in mine.compacted_sstables:
        if shard in committed:
            if committed[shard] >= generation:
                return INCOMPATIBLE
            result = RETRYABLE
    return result


def _write_ahead_log(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """w: only the index of the log itself can be made while the log moves on."""
    names = _names(mine.new_indices)
    return OK if names == {MEM_WAL} else verdict


def _overlaid_rows(mine: Any, theirs: Any, verdict: Verdict) -> Verdict:
    """e: rows whose values were overlaid must not have moved or gone."""
    overlay, change = (mine, theirs) if isinstance(mine, ops.DataOverlay) else (theirs, mine)
    if change is theirs and overlay.touched & change.removed:
        return RETRYABLE
    # Which rows moved is not looked up: any moved row of the fragment counts.
    moves = isinstance(change, ops.Update) and not _rewrites_columns(change)
    return _retry_if(moves and not overlay.touched.isdisjoint(change.touched))


CONDITIONS: Mapping[str, Callable[[Any, Any, Verdict], Verdict]] = {
    "a": _same_base,
    "b": _index_and_rewrite,
    "c": _same_shard,
    "d": _replacement_target,
    "e": _overlaid_rows,
    "f": _fragments,
    "g": _merge_and_metadata,
    "i": _index_and_replacement,
    "k": _inserted_keys,
    "m": _merge_and_index,
    "n": _nullability,
    "o": _overwrites,
    "s": _same_name,
    "u": _metadata,
    "v": _same_column,
    "w": _write_ahead_log,
}
