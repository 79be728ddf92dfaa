"""Which rows a filter cannot match, by what data files of format 0.1 say of their batches (`spec/file-2.0-and-0.1.md`, B.6).

```
filter  a = 7 and b like 'x%'      batches       0       1       2
                                   a min..max   0..4    5..9   10..14
units   rows 0..3072          ─►   rows 1024..2048                       what is read, for both columns
```

Bounds describe the values that were written, the filter sees those that are read, and these differ: the format keeps
no nulls (B.4).  So bounds count only where they say something about the values that are read:

* a null of fixed width is read as whatever lies in its slot: a batch with nulls has no bounds;
* NaN is left out of the bounds and is the greatest value of the filter language: floats have no upper bound;
* strings may be cut, down for the least and up for the greatest, so both still enclose all values; null strings are
  read as null if the field is nullable, else as empty ones, and then they count as above;
* no bound at all is stored as null, and so is an empty string.

`rows_that_may_match` answers for one file (pure); `prune` asks the files of a group of units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from pyarrow import types

from pilum import arrays
from pilum.errors import PilumError
from pilum.file.v0_1 import FileReader01
from pilum.io import Bytes
from pilum.query.expressions import Apply, Bound, Constant, FieldRef, Junction, field_refs
from pilum.query.fragment_reader import FragmentReader, gather
from pilum.query.snapshot import Snapshot
from pilum.query.units import Unit, UnitGroup
from pilum.schema import Schema

__all__ = ["Bounds", "bounded_columns", "prune", "rows_that_may_match"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ranges: TypeAlias = list[tuple[int, int]]

# More runs of rows than this in one unit cost more than they save; what lies between them is then read, too.
_MOST_RUNS = 32


class Bounds(NamedTuple):
    """What is known of one column of a file, batch by batch.

    Attributes:
        low, high: arrays of the column's type; null where nothing is known.
        unsure: batches with values outside of the bounds, nulls that are read as something else.
    """

    low: Any
    high: Any
    unsure: Bools


def bounded_columns(node: Bound) -> tuple[str, ...]:
    """The top-level columns whose bounds may rule out rows; none if the filter has no such condition."""
    if isinstance(node, Junction):
        parts = [bounded_columns(part) for part in node.args]
        if not node.conjunction and not all(parts):
            return ()
        return tuple(dict.fromkeys(name for part in parts for name in part))
    if _bare(node) is not None or _test_of(node) is not None:
        return tuple(dict.fromkeys(ref.path[0] for ref in field_refs(node)))
    return ()


def rows_that_may_match(node: Bound, bounds: Mapping[str, Bounds]) -> Bools | None:
    """For each batch whether a row of it may pass the filter; None if nothing can be said.

    Args:
        node: a bound filter.
        bounds: of the columns that are known.
    """
    if isinstance(node, Junction):
        found = [rows_that_may_match(part, bounds) for part in node.args]
        known = [mask for mask in found if mask is not None]
        if not known or (not node.conjunction and len(known) < len(found)):
            return None
        join = np.logical_and if node.conjunction else np.logical_or
        mask: Bools = join.reduce(known)
        return mask
    bare = _bare(node)
    if bare is not None:
        name, wanted = bare
        one = bounds.get(name)
        if one is None or not types.is_boolean(one.low.type):
            return None
        return _or_unknown(one.high if wanted else pc.invert(one.low), one)
    test = _test_of(node)
    if test is None:
        return None
    name, constants, compare = test
    one = bounds.get(name)
    if one is None or any(not constant.type.equals(one.low.type) for constant in constants):
        return None
    masks = [compare(one, constant.scalar) for constant in constants if constant.value is not None]
    if not masks:
        return one.unsure & False
    result: Bools = np.logical_or.reduce(masks)
    return result


def _bare(node: Bound) -> tuple[str, bool] | None:
    """A boolean column that must be true (or, inside NOT, false)."""
    if isinstance(node, FieldRef):
        return (node.path[0], True) if len(node.path) == 1 and types.is_boolean(node.type) else None
    if isinstance(node, Apply) and node.name == "not" and isinstance(node.args[0], FieldRef):
        inner = _bare(node.args[0])
        return None if inner is None else (inner[0], False)
    return None


_Test: TypeAlias = tuple[str, Sequence[Constant], Callable[[Bounds, Any], Bools]]


def _test_of(node: Bound) -> _Test | None:
    """The column, the constants and the test of a comparison that bounds can decide; None for all others."""
    if not isinstance(node, Apply) or not node.args or not isinstance(node.args[0], FieldRef):
        return None
    column = node.args[0]
    if len(column.path) != 1:
        return None
    if node.name == "in" and node.items:
        return column.path[0], node.items, _equal
    compare = _TESTS.get(node.name)
    if compare is None or not isinstance(node.args[1], Constant):
        return None
    value = node.args[1]
    if types.is_floating(value.type) and value.value != value.value:
        return None
    return column.path[0], (value,), compare


def _or_unknown(mask: Any, bounds: Bounds) -> Bools:
    """The mask as NumPy has it; true where a bound is null or does not hold."""
    found: Bools = arrays.to_numpy(pc.fill_null(mask, True))
    return found | bounds.unsure


def _below(bounds: Bounds, value: Any) -> Bools:
    return _or_unknown(pc.less(bounds.low, value), bounds)


def _at_most(bounds: Bounds, value: Any) -> Bools:
    return _or_unknown(pc.less_equal(bounds.low, value), bounds)


def _above(bounds: Bounds, value: Any) -> Bools:
    if types.is_floating(bounds.high.type):
        return np.ones(len(bounds.high), np.bool_)
    return _or_unknown(pc.greater(bounds.high, value), bounds)


def _at_least(bounds: Bounds, value: Any) -> Bools:
    if types.is_floating(bounds.high.type):
        return np.ones(len(bounds.high), np.bool_)
    return _or_unknown(pc.greater_equal(bounds.high, value), bounds)


def _equal(bounds: Bounds, value: Any) -> Bools:
    if types.is_floating(value.type) and value.as_py() != value.as_py():
        return np.ones(len(bounds.high), np.bool_)
    low, high = pc.less_equal(bounds.low, value), pc.greater_equal(bounds.high, value)
    return _or_unknown(low, bounds) & _or_unknown(high, bounds)


_TESTS: Mapping[str, Callable[[Bounds, Any], Bools]] = {
    "=": _equal,
    "<": _below,
    "<=": _at_most,
    ">": _above,
    ">=": _at_least,
}


# -- files ------------------------------------------------------------------------------------------------


async def prune(
    snapshot: Snapshot, group: UnitGroup, node: Bound, schema: Schema, bodies: dict[str, Bytes]
) -> UnitGroup | None:
    """The group without rows that the filter cannot match; None when none are left.

    Args:
        snapshot: the table.
        group: rows to be read.
        node: the bound filter.
        schema: the columns whose bounds may help.
        bodies: data files that were fetched whole; those that are fetched now are added.
    """
    found = await gather(
        [_of_unit(snapshot, unit, node, schema, bodies) for unit in group.units], suspends=snapshot.suspends
    )
    if all(one is None for one in found):
        return group
    units: list[Unit] = []
    for unit, ranges in zip(group.units, found, strict=True):
        units += [unit] if ranges is None else [Unit(unit.fragment, low, high) for low, high in ranges]
    return UnitGroup.of(units) if units else None


async def _of_unit(
    snapshot: Snapshot, unit: Unit, node: Bound, schema: Schema, bodies: dict[str, Bytes]
) -> Ranges | None:
    """The rows of a unit that may match; None: all."""
    if all(file.version > (0, 2) for file in unit.fragment.files):
        return None
    opened = await FragmentReader.open(snapshot, unit.fragment, schema, 0, bodies)
    bodies.update(opened.bodies())
    left: Ranges | None = None
    for reader in opened.files:
        if not isinstance(reader, FileReader01):
            continue
        kept = await _batches(reader, node)
        if kept is None or kept.all():
            continue
        ranges = _runs(kept, reader.metadata.offsets, unit)
        left = ranges if left is None else _both(left, ranges)
    if left is not None and len(left) > _MOST_RUNS:
        return [(left[0][0], left[-1][1])]
    return left


async def _batches(reader: FileReader01, node: Bound) -> Bools | None:
    """For each batch of a file whether it may hold a match, by the columns that are read from this file."""
    try:
        statistics = await reader.statistics()
    except PilumError:
        return None  # they only save work; if they are damaged, the rows decide
    if statistics is None or statistics.num_rows != len(reader.metadata.offsets) - 1:
        return None
    bounds = {}
    for field in reader.schema.fields:
        position = statistics.schema.get_field_index(str(field.id))
        if position < 0:
            continue
        one = statistics.column(position)
        if not types.is_struct(one.type) or any(one.type.get_field_index(name) < 0 for name in _MEMBERS):
            continue
        nulls, low, high = (one.field(name) for name in _MEMBERS)
        # Null strings are read as null; nulls of all other types as something that the bounds do not know.
        kept = field.nullable and (_is_variable(low.type))
        unsure = np.zeros(len(low), np.bool_) if kept else arrays.to_numpy(pc.not_equal(nulls, 0))
        if low.type.equals(field.arrow_type) and high.type.equals(low.type):
            bounds[field.name] = Bounds(low, high, unsure)
    return rows_that_may_match(node, bounds) if bounds else None


_MEMBERS = ("null_count", "min_value", "max_value")


def _is_variable(kind: Any) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _runs(kept: Bools, offsets: npt.NDArray[np.int64], unit: Unit) -> Ranges:
    """The rows of a unit that lie in some batches, neighbours joined."""
    padded = np.concatenate([[False], kept, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    lows = np.maximum(offsets[edges[::2]], unit.start)
    highs = np.minimum(offsets[edges[1::2]], unit.stop)
    return [(low, high) for low, high in zip(lows.tolist(), highs.tolist(), strict=True) if low < high]


def _both(one: Ranges, other: Ranges) -> Ranges:
    """The rows that are in both of two lists of ascending ranges."""
    found: Ranges = []
    i = j = 0
    while i < len(one) and j < len(other):
        low, high = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if low < high:
            found.append((low, high))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return found
