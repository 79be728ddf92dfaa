"""Planning a filtered read: which columns are read when, for which rows.  Pure.

```
filter  a < 3 AND name LIKE 'x%' AND _rowid > 7        columns a, b, name, blob
stages  1 _rowid > 7        reads nothing
        2 a < 3             reads a        for the rows that are left
        3 name LIKE 'x%'    reads name     for the rows that are left
late    b, blob                            for the rows that are left
```

Conditions that must all hold are tested cheapest column first; a stage reads its columns whole, or, when few rows
are left, only those rows.  Over a network each stage costs a round trip, so there cheap columns come together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pilum import config
from pilum.errors import InvalidInputError
from pilum.query import binding, metrics, pruning
from pilum.query.ordering import ColumnOrdering
from pilum.query.projection import Projection, resolve, stored_columns
from pilum.query.request import ScanRequest
from pilum.query.snapshot import Snapshot
from pilum.query.system import SYSTEM_TYPES
from pilum.query.units import unit_bytes
from pilum.schema import Schema, bytes_per_row, split_path, with_stored_blobs
from pilum.table import Fragment

if TYPE_CHECKING:
    from pilum.query.metrics import ScanMetrics

__all__ = ["Scan", "Stage", "plan_scan", "plan_stages", "readahead"]

# A column of at most this many bytes a row is read with the filter's columns when a round trip is slow
# (spec/read-path.md, section 9); on a local disk it is read when the filter has said for which rows.
_EARLY_REMOTE = 1000


@dataclass(frozen=True, slots=True)
class Stage:
    """Conditions that are tested together.

    Attributes:
        filters: the conditions.
        schema: the stored columns read for them, and early ones that are only returned.
        system: the system columns they name.
        keep: columns of ``schema`` that later stages or the output need.
    """

    filters: tuple[Any, ...]
    schema: Schema
    system: tuple[str, ...]
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scan:
    """A planned scan: what is read, filtered and returned.  Planning did no I/O.

    Attributes:
        fragments: to read, in order.
        projection: the output columns, and after them those that are only sorted by.
        filter: the bound filter or None.
        stages: the filter in the order in which it is tested.
        late: stored columns needed only for the output.
        union: every stored column that is read.
        batch_size: most rows of an output batch.
        orderings, order_names: what to sort by, and the columns of the projection that hold it.
        bounded: columns whose statistics may rule out rows; only files of format 0.1 have any.
        metrics: measurements of this run, if it is measured.
    """

    snapshot: Snapshot
    request: ScanRequest
    fragments: tuple[Fragment, ...]
    projection: Projection
    filter: Any
    stages: tuple[Stage, ...]
    late: Schema
    union: Schema
    batch_size: int
    orderings: tuple[ColumnOrdering, ...] = ()
    order_names: tuple[str, ...] = ()
    bounded: Schema | None = None
    metrics: ScanMetrics | None = None

    @property
    def schema(self) -> pa.Schema:
        """Schema of the output."""
        extra = len([name for name in self.order_names if name.startswith("__order_")])
        found = self.projection.schema
        if not extra:
            return found
        return pa.schema(list(found)[: len(found) - extra], metadata=found.metadata)

    @property
    def nothing(self) -> bool:
        """Whether it is known without reading that no row is returned."""
        return self.request.limit == 0 or (self.filter is not None and self.filter.constant is False)

    @property
    def row_bytes(self) -> float:
        """Decoded bytes of a row, about."""
        return max(self.union.row_bytes + 8 * len(self.projection.system), 1.0)

    @property
    def unit_bytes(self) -> int:
        """Decoded bytes of a unit of work, about."""
        return unit_bytes(len(self.union.leaves()))

    def measured(self) -> Scan:
        """The same scan, with measurements of its own."""
        return replace(self, metrics=metrics.ScanMetrics(self.snapshot.suspends))


def readahead(snapshot: Snapshot, request: ScanRequest) -> int:
    """Fragments (units) in flight: the argument, the environment, or a multiple of the store's parallelism.

    Over a network twice the number that the disk gets: while some are decoded, or wait for a request that had to be
    made again, the others keep the network busy (800 small files at 30 ms: 0.80 s with half of it, 0.66 s with it;
    1.08 s and 0.75 s where one request in 14 fails).
    """
    chosen = request.fragment_readahead
    if chosen is None:
        chosen = config.default_fragment_readahead()
    if chosen is None:
        chosen = (4 if snapshot.suspends else 2) * snapshot.store.io_parallelism
    return max(1, chosen)


def plan_scan(snapshot: Snapshot, request: ScanRequest) -> Scan:
    """Resolve columns and filter against the schema.  Pure; raises InvalidInputError for bad names."""
    schema = with_stored_blobs(snapshot.manifest.schema)
    projection = resolve(
        schema, request.columns, with_row_id=request.with_row_id, with_row_address=request.with_row_address
    )
    names = set(projection.schema.names)
    hidden = {
        f"__order_{position}": one.column_name
        for position, one in enumerate(request.order_by)
        if one.column_name not in names
    }
    order_names = tuple(
        one.column_name if one.column_name in names else f"__order_{position}"
        for position, one in enumerate(request.order_by)
    )
    if hidden:
        projection = projection.extended(schema, hidden)
    bound = None
    if request.filter is not None:
        bound = binding.parse_filter(request.filter, schema)
    stages: tuple[Stage, ...] = ()
    late = projection.read
    if bound is not None and bound.constant is None:
        stages, late = plan_stages(snapshot, bound, projection.read, request.late_materialization)
    bounded = _bounded(snapshot, request, bound) if stages else None
    read = [field.name for stage in stages for field in stage.schema.fields]
    read += [field.name for field in late.fields]
    batch_size = (
        request.batch_size or config.default_batch_size() or max(snapshot.store.block_size // 4, 8192)
    )
    return Scan(
        snapshot=snapshot,
        request=request,
        fragments=snapshot.select(request.fragment_ids),
        projection=projection,
        filter=bound,
        stages=stages,
        late=late,
        union=late if not stages else _in_order(schema, read),
        batch_size=int(batch_size),
        orderings=request.order_by,
        order_names=order_names,
        bounded=bounded,
    )


def _bounded(snapshot: Snapshot, request: ScanRequest, bound: Any) -> Schema | None:
    """The columns whose statistics may rule out rows for a filter."""
    if request.use_stats is False:
        return None
    plans = snapshot.plans
    old: bool | None = plans.get("has statistics")
    if old is None:
        fragments = snapshot.manifest.fragments
        old = any(file.version <= (0, 2) for fragment in fragments for file in fragment.files)
        plans["has statistics"] = old
    if not old:
        return None
    names = set(pruning.bounded_columns(bound.node))
    schema = with_stored_blobs(snapshot.manifest.schema)
    found = [field.name for field in schema.fields if field.name in names]
    return schema.project(found) if found else None


def _in_order(schema: Schema, names: Sequence[str]) -> Schema:
    wanted = set(names)
    return schema.project([field.name for field in schema.fields if field.name in wanted])


def plan_stages(
    snapshot: Snapshot, bound: Any, returned: Schema, late: bool | tuple[str, ...] | None
) -> tuple[tuple[Stage, ...], Schema]:
    """The stages of a filter and the columns that are read for the surviving rows only.

    Args:
        snapshot: the table.
        bound: a filter that depends on the row.
        returned: stored columns of the output.
        late: the option `late_materialization`: True reads all output columns late, False none, names exactly
            these; None decides by the store and the width of the column.
    """
    schema = with_stored_blobs(snapshot.manifest.schema)
    returned_names = [field.name for field in returned.fields]
    if isinstance(late, tuple):
        for name in late:
            if split_path(name)[0] not in schema.names:
                raise InvalidInputError(f"late_materialization: no column named {name!r}")
    conditions = list(binding.split_filter(bound))
    tops = {
        path: split_path(path)[0]
        for one in conditions
        for path in one.columns
        if path not in SYSTEM_TYPES or path in schema.names
    }
    # A struct that is filtered by one field and returned with others is read once, whole; so is one that two
    # conditions look into.
    users: dict[str, set[str]] = {}
    for path, top in tops.items():
        users.setdefault(top, set()).add(path)
    whole = {top for top, paths in users.items() if top in returned_names or len(paths) > 1}

    def needs(one: Any) -> dict[str, str]:
        return {
            tops[path]: tops[path] if tops[path] in whole else path for path in one.columns if path in tops
        }

    def width(name: str) -> float:
        return bytes_per_row(pa.schema([schema.field(name).to_arrow()]))

    early = [
        name
        for name in returned_names
        if name not in users and _is_early(snapshot, schema, name, late, width(name))
    ]
    stages: list[Stage] = []
    have: set[str] = set()
    while conditions:
        costs = [
            sum(width(path) for top, path in needs(one).items() if top not in have) for one in conditions
        ]
        # Over a network everything cheap comes in one round; what needs no data at all is always tested first.
        bound_cost = min(costs)
        if snapshot.suspends and bound_cost > 0:
            bound_cost = max(bound_cost, _EARLY_REMOTE)
        first = conditions[costs.index(min(costs))]
        wanted: dict[str, str] = {top: path for top, path in needs(first).items() if top not in have}
        if snapshot.suspends and min(costs) > 0:
            for one, cost in zip(conditions, costs, strict=True):
                if cost <= bound_cost:
                    wanted.update((top, path) for top, path in needs(one).items() if top not in have)
        chosen = [one for one in conditions if all(top in have or top in wanted for top in needs(one))]
        if min(costs) > 0 or len(chosen) == len(conditions):
            extra = [name for name in early if name not in have]
            wanted.update((name, name) for name in extra)
        conditions = [one for one in conditions if one not in chosen]
        have |= set(wanted)
        system = tuple(
            dict.fromkeys(
                path for one in chosen for path in one.columns if path in SYSTEM_TYPES and path not in tops
            )
        )
        stages.append(Stage(tuple(chosen), stored_columns(schema, list(wanted.values())), system))
    for position, stage in enumerate(stages):
        later = {top for other in stages[position + 1 :] for one in other.filters for top in needs(one)}
        keep = tuple(
            field.name for field in stage.schema.fields if field.name in later or field.name in returned_names
        )
        stages[position] = replace(stage, keep=keep)
    rest = returned.project([field.name for field in returned.fields if field.name not in have])
    return tuple(stages), rest


def _is_early(
    snapshot: Snapshot, schema: Schema, name: str, late: bool | tuple[str, ...] | None, width: float
) -> bool:
    if isinstance(late, bool):
        return not late
    if late is not None:
        return name not in {split_path(one)[0] for one in late}
    return snapshot.suspends and width < _EARLY_REMOTE and _fixed_width(schema.field(name).to_arrow().type)


def _fixed_width(kind: pa.DataType) -> bool:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _fixed_width(kind.storage_type)
    if types.is_fixed_size_list(kind):
        return _fixed_width(kind.value_type)
    if types.is_struct(kind):
        return all(_fixed_width(kind.field(i).type) for i in range(kind.num_fields))
    return bool(
        types.is_primitive(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    )
