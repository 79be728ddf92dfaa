"""Columns whose members lie in several data files (spec/table.md, section 10.1).

A member of a struct that was given another type has a file of its own.  That file holds the struct with this member
alone, so both files say which structs and lists are there, and joining takes them from the first:

```
file 0:  s {b}  ─┐
file 1:  s {a}  ─┴─►  s {a, b}         a member that no file holds is null
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.schema import Field

__all__ = ["join_members", "leaf_paths"]


def leaf_paths(field: Field) -> dict[int, str]:
    """Id of each leaf of a column -> its dotted path, every name quoted."""

    def walk(one: Field, above: str) -> dict[int, str]:
        path = above + "`" + one.name.replace("`", "``") + "`"
        if one.is_leaf:
            return {one.id: path}
        return {key: value for child in one.children for key, value in walk(child, path + ".").items()}

    return walk(field, "")


def join_members(
    field: Field, pieces: Sequence[pa.Array], count: int, *, deletions: bool = False
) -> pa.Array:
    """One column of pieces that hold different members of it, row by row.

    Args:
        field: the column.
        pieces: what each file holds of it; none for a column that no file holds.
        count: number of rows.
        deletions: whether some rows are deleted: in these the files may hold anything.

    Raises:
        InvalidInputError: a required member is in no file.
        CorruptFileError: the files disagree about the length of lists.
        UnsupportedError: members of something else than structs and lists.
    """
    wanted = field.arrow_type
    if not pieces:
        if not field.nullable:
            raise InvalidInputError(f"no data file holds the required column {field.name!r}")
        return pa.nulls(count, wanted)
    first = pieces[0]
    if first.type.equals(wanted):
        return first
    if pa.types.is_struct(wanted):
        children = []
        for child in field.children:
            places = [(one, one.type.get_field_index(child.name)) for one in pieces]
            held = [one.field(at) for one, at in places if at >= 0]
            children.append(join_members(child, held, count, deletions=deletions))
        return pa.StructArray.from_arrays(children, fields=list(wanted), mask=_nulls(first))
    if pa.types.is_list(wanted) or pa.types.is_large_list(wanted):
        (child,) = field.children
        items = [one.flatten() for one in pieces]
        lengths = [_lengths(one) for one in pieces]
        agree = np.logical_and.reduce([one == lengths[0] for one in lengths])
        if not agree.all():
            if not deletions:
                raise CorruptFileError(
                    f"the files of column {field.name!r} disagree about the length of lists"
                )
            items = [arrays.take(one, np.flatnonzero(np.repeat(agree, sizes)))
                     for one, sizes in zip(items, lengths, strict=True)]  # fmt: skip
        offsets = np.concatenate([[0], np.cumsum(np.where(agree, lengths[0], 0))]).astype(lengths[0].dtype)
        values = join_members(child, items, len(items[0]), deletions=deletions)
        return type(first).from_arrays(arrays.from_numpy(offsets), values, type=wanted, mask=_nulls(first))
    raise UnsupportedError(f"column {field.name!r}, {wanted}, is spread over several data files")


def _lengths(lists: pa.Array) -> npt.NDArray[Any]:
    lengths = np.diff(arrays.to_numpy(lists.offsets))
    lengths[~arrays.valid(lists)] = 0
    return lengths


def _nulls(array: pa.Array) -> pa.Array | None:
    return arrays.from_numpy(~arrays.valid(array)) if array.null_count else None
