"""The request plan: what a query will ask of the store, told before anything is read.

Scheduling is pure, so where the metadata of a file is known (an earlier query of the session, or a file that is
fetched whole) the plan is exact: these byte ranges, merged into these requests, in so many rounds that wait for each
other.  For files that have not been opened it is an estimate from the manifest: the end of the file, then the
metadata of its pages, then the data.  What is read only for rows that pass a filter is counted as if all rows passed,
and marked; what is read for the best rows of a search or an order is counted as if each lay in a fragment of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pilum.file import FileReader
from pilum.file.page_metadata import WHOLE_PAGE
from pilum.file.plan import ReadPlan
from pilum.io.ranges import merge_ranges
from pilum.query.alike import known_range
from pilum.query.fragment_reader import FragmentReader, fetched_whole
from pilum.query.scan import Scan, ordered_keys, plan_groups
from pilum.query.search import Search, search_groups
from pilum.query.snapshot import Snapshot
from pilum.query.units import Unit
from pilum.schema import Schema
from pilum.table import Fragment
from pilum.table.deletions import deletion_path

__all__ = ["ColumnRequests", "FileRequests", "RequestPlan", "plan_requests_of"]

# Steps that read the best rows of all fragments, whichever those are.
_ANYWHERE = -1
# A deletion file without its rows: the frame of an Arrow file.
_DELETIONS = 500


@dataclass(frozen=True, slots=True)
class ColumnRequests:
    """What one column needs of one file.

    Attributes:
        name: top-level name of the column.
        nbytes: bytes of data (an estimate where the file's plan is one).
        ranges: byte ranges, before they are merged; 0 where that is not known yet.
    """

    name: str
    nbytes: int
    ranges: int


@dataclass(frozen=True, slots=True)
class FileRequests:
    """The requests one step of a query makes to one file.

    Attributes:
        fragment_id: whose file it is; -1 for rows that may lie in any fragment.
        path: key of the file in its store; empty for rows that may lie in any fragment.
        step: ``stage 1``, …, ``late``, ``vectors``, ``filter``, ``take``: as in the plan's measurements.
        columns: what each column needs; empty for a deletion file.
        requests, nbytes: to be made.
        rounds: how many of them wait for one before.
        exact: False for an estimate.
        conditional: whether it is read only for the rows that pass a filter, or until there are enough rows; then
            ``nbytes`` is the most, and so are ``requests`` unless the rows lie far apart.
    """

    fragment_id: int
    path: str
    step: str
    columns: tuple[ColumnRequests, ...]
    requests: int
    nbytes: int
    rounds: int
    exact: bool
    conditional: bool


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """All requests of a query, file by file in the order in which they are started."""

    files: tuple[FileRequests, ...]

    @property
    def requests(self) -> int:
        """Requests in all."""
        return sum(one.requests for one in self.files)

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return sum(one.nbytes for one in self.files)

    @property
    def rounds(self) -> int:
        """Dependent rounds when everything else overlaps: those of the slowest fragment, its steps one after the
        other, and then those of the best rows."""
        steps: dict[tuple[int, str], int] = {}
        for one in self.files:
            key = one.fragment_id, one.step
            steps[key] = max(steps.get(key, 0), one.rounds)
        fragments: dict[int, int] = {}
        for (fragment_id, _), rounds in steps.items():
            fragments[fragment_id] = fragments.get(fragment_id, 0) + rounds
        last = fragments.pop(_ANYWHERE, 0)
        return max(fragments.values(), default=0) + last

    @property
    def exact(self) -> bool:
        """Whether no part is an estimate or depends on a filter."""
        return all(one.exact and not one.conditional for one in self.files)

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        lines = [f"{about}{self.requests} requests, {self.nbytes:,} bytes, {self.rounds} rounds"]
        for one in self.files[:50]:
            where = f"fragment {one.fragment_id}" if one.fragment_id >= 0 else "best rows"
            columns = ", ".join(f"{column.name} {column.nbytes:,}" for column in one.columns) or one.path
            notes = ("" if one.exact else ", estimated") + (", if rows pass" if one.conditional else "")
            lines.append(
                f"  {where} {one.step}: {one.requests} requests, {one.nbytes:,} bytes, "
                f"{one.rounds} rounds{notes} [{columns}]"
            )
        if len(self.files) > 50:
            lines.append(f"  … and {len(self.files) - 50} more")
        return "\n".join(lines) + "\n"


def plan_requests_of(plan: Scan | Search) -> RequestPlan:
    """The requests that running a plan will make.  Pure: nothing is read."""
    return RequestPlan(tuple(_of_search(plan) if isinstance(plan, Search) else _of_scan(plan)))


def _of_scan(scan: Scan) -> Iterator[FileRequests]:
    request = scan.request
    if scan.orderings:
        if request.limit == 0:
            return
        keys = ordered_keys(scan)
        yield from _of_scan(keys)
        if keys.projection is not scan.projection:
            rows = min((request.limit or 0) + (request.offset or 0), scan.snapshot.manifest.num_rows)
            yield from _of_best(scan.snapshot, scan.projection.read, rows, "take")
        return
    if scan.nothing:
        return
    known: dict[int, set[str]] = {}
    limited = request.limit is not None and bool(scan.stages)
    # Deletions decide which rows a limit means, and are needed before anything else.
    first = (
        "deletions"
        if (request.limit is not None or request.offset) and not scan.stages
        else (scan_steps(scan)[:1] or ["late"])[0]
    )
    for group in plan_groups(scan):
        for unit in group.units:
            seen = known.get(unit.fragment.id)
            exact = True
            if not request.include_deleted_rows or scan.projection.system or scan.stages:
                if seen is None:
                    yield from _of_deletions(scan.snapshot, unit.fragment, first, limited)
                exact = first != "deletions" or scan.snapshot.known_deletions(unit.fragment) is not None
            seen = known.setdefault(unit.fragment.id, set())
            yield from _of_stages(scan, unit, seen, _How(limited, exact, len(group.units) > 1))


def scan_steps(scan: Scan) -> list[str]:
    """Names of the steps of a scan that read stored columns."""
    steps = [f"stage {number + 1}" for number, stage in enumerate(scan.stages) if stage.schema.fields]
    return [*steps, "late"] if scan.late.fields else steps


def _of_search(plan: Search) -> Iterator[FileRequests]:
    if plan.request.fast_search or (plan.before is not None and plan.before.nothing):
        return
    snapshot, before = plan.snapshot, plan.before
    filtered = before is not None and bool(before.stages)
    first = (scan_steps(before)[:1] if before is not None and filtered else []) or ["vectors"]
    known: dict[int, set[str]] = {}
    total = 0
    for item in search_groups(plan):
        how = _How(False, True, len(item.group.units) > 1)
        for run in item.runs:
            values = None if plan.queries[0].multi else known_range(snapshot, run, plan.vector)
            for unit in run.units:
                total += unit.stop - unit.start
                if unit.fragment.id not in known:
                    yield from _of_deletions(snapshot, unit.fragment, first[0], False)
                seen = known.setdefault(unit.fragment.id, set())
                if before is not None and filtered:
                    yield from _of_stages(before, unit, seen, how)
                if values is None or any(one.endswith(" whole") for one in seen):
                    yield from _of_unit(
                        snapshot, unit, plan.vector, "vectors", seen, how._replace(conditional=filtered)
                    )
                else:
                    yield _of_values(unit, plan.vector, values, "vectors", filtered)
    rows = min(plan.nearest.k * len(plan.queries), total * len(plan.queries))
    if plan.after is not None:
        yield from _of_best(snapshot, plan.after_schema, rows, "filter")
    if plan.request.limit is not None and not plan.request.order_by:
        rows = min(rows, plan.request.limit)
    yield from _of_best(snapshot, plan.projection.read, rows, "take")


def _of_best(snapshot: Snapshot, schema: Schema, rows: int, step: str) -> Iterator[FileRequests]:
    """Rows that may lie anywhere: at worst each in a fragment of its own."""
    if not schema.fields or not rows:
        return
    fragments = snapshot.manifest.fragments
    files = min(rows, len(fragments))
    opened = all(FragmentReader.known(snapshot, one, schema) is not None for one in fragments[:100])
    rounds = 1 if opened else 2
    requests = files * rounds * len(schema.leaves())
    columns = _sizes(schema, rows)
    nbytes = sum(column.nbytes for column in columns)
    yield FileRequests(_ANYWHERE, "", step, columns, requests, nbytes, rounds, False, True)


def _of_deletions(
    snapshot: Snapshot, fragment: Fragment, step: str, conditional: bool
) -> Iterator[FileRequests]:
    deletion = fragment.deletion_file
    if deletion is None or snapshot.known_deletions(fragment) is not None:
        return
    # The manifest does not say how long the file is.
    size = _DELETIONS + 4 * fragment.num_deleted_rows
    path = deletion_path(fragment.id, deletion)
    yield FileRequests(fragment.id, path, step, (), 1, size, 1, False, conditional)


class _How(NamedTuple):
    """How certain it is that a unit is read.

    Attributes:
        conditional: only if rows pass a filter.
        exact: just these rows.
        together: with others of its group, which are asked for in one go.
    """

    conditional: bool
    exact: bool
    together: bool


def _of_stages(scan: Scan, unit: Unit, seen: set[str], how: _How) -> Iterator[FileRequests]:
    for number, stage in enumerate(scan.stages):
        name = f"stage {number + 1}"
        yield from _of_unit(scan.snapshot, unit, stage.schema, name, seen, how)
        how = how._replace(conditional=True)
    yield from _of_unit(scan.snapshot, unit, scan.late, "late", seen, how)


def _of_unit(
    snapshot: Snapshot, unit: Unit, schema: Schema, step: str, seen: set[str], how: _How
) -> Iterator[FileRequests]:
    """Requests for rows of one fragment; ``seen``: files that an earlier step has opened or fetched whole."""
    if not schema.fields:
        return
    fragment = unit.fragment
    readers = FragmentReader.without_reading(snapshot, fragment, schema)
    if readers is not None:
        for reader in readers:
            plan = reader.planned(unit.start, unit.stop) if isinstance(reader, FileReader) else None
            if plan is not None and isinstance(reader, FileReader):
                yield from _exact(reader, plan, fragment.id, step, how)
            else:
                yield _estimate(
                    unit, reader.path, reader.schema, 0, len(reader.schema.leaves()), 0, step, how.conditional,
                    opened=True, initialised=reader.path in seen, ahead=snapshot.suspends,
                )  # fmt: skip
            seen.add(reader.path)
        return
    size = fetched_whole(snapshot, fragment, schema, unit.stop - unit.start)
    path = "data/" + fragment.files[0].path if fragment.files else ""
    if path + " whole" in seen:
        return  # the bytes are here
    if size and path not in seen:
        seen |= {path, path + " whole"}
        columns = tuple(ColumnRequests(field.name, 0, 0) for field in schema.fields)
        yield FileRequests(fragment.id, path, step, columns, 1, size, 1, True, how.conditional)
        return
    for data_file in fragment.files:
        held = set(data_file.fields)
        names = [field.name for field in schema.fields if {leaf.id for leaf in field.leaves()} & held]
        if not names:
            continue
        store, path = snapshot.place_of(data_file)
        opened = path in seen or snapshot.session.cache.get((store.uri, path)) is not None
        again = path + " " + step
        initialised = again in seen
        seen |= {path, again}
        yield _estimate(
            unit, path, schema.project(names), data_file.size or 0, len(held), store.block_size, step, how.conditional,
            opened=opened, initialised=initialised, ahead=store.suspends,
        )  # fmt: skip


def _of_values(
    unit: Unit, schema: Schema, values: tuple[int, int], step: str, conditional: bool
) -> FileRequests:
    """The request for the values of a fragment that is like its neighbours."""
    size = values[1] - values[0]
    columns = (ColumnRequests(schema.fields[0].name, size, 1),)
    path = "data/" + unit.fragment.files[0].path
    return FileRequests(unit.fragment.id, path, step, columns, 1, size, 1, True, conditional)


def _exact(
    reader: FileReader, plan: ReadPlan, fragment_id: int, step: str, how: _How
) -> Iterator[FileRequests]:
    store = reader.store
    here = reader.at_hand(plan.ranges)
    ranges = plan.ranges
    if here is not None:
        ranges = [one for one, found in zip(ranges, here, strict=True) if found is None]
        if not ranges:
            return
    requests = merge_ranges(ranges, store.block_size) if how.together else store.planned(ranges)
    sizes: dict[str, list[int]] = {field.name: [0, 0] for field in plan.projection.schema.fields}
    names = [field.name for field in plan.projection.schema.fields for _ in field.leaves()]
    for slot in plan.slots:
        entry = sizes[names[slot.leaf]]
        own = plan.ranges[slot.first : slot.last]
        entry[0] += sum(high - low for low, high in own)
        entry[1] += len(own)
    columns = tuple(ColumnRequests(name, size, count) for name, (size, count) in sizes.items())
    nbytes = sum(high - low for low, high in requests)
    rounds = min(1, len(requests))
    yield FileRequests(
        fragment_id, reader.path, step, columns, len(requests), nbytes, rounds, how.exact, how.conditional
    )


def _sizes(schema: Schema, rows: int) -> tuple[ColumnRequests, ...]:
    return tuple(
        ColumnRequests(field.name, int(rows * schema.project([field.name]).row_bytes), 0)
        for field in schema.fields
    )


def _estimate(
    unit: Unit,
    path: str,
    schema: Schema,
    size: int,
    leaves: int,
    gap: int,
    step: str,
    conditional: bool,
    *,
    opened: bool,
    initialised: bool,
    ahead: bool,
) -> FileRequests:
    """About what a file will be asked for that has not been looked at.

    Args:
        size: of the file; 0 if it is not known.
        leaves: columns in the file.
        gap: bytes between ranges that are fetched together.
        opened: whether its end is known.
        initialised: whether the metadata of its pages is.
        ahead: whether the store is slow, so that more is read at once.
    """
    rows = unit.stop - unit.start
    columns = _sizes(schema, rows)
    data = sum(column.nbytes for column in columns)
    if size:
        data = min(data, size * rows // max(1, unit.fragment.physical_rows))
    # Columns lie one behind the other: further apart than the gap when they are long.
    wanted = len(schema.leaves())
    apart = wanted if size > gap * leaves else 1
    pieces = 1 if wanted == leaves and rows == unit.fragment.physical_rows else apart
    tail = 0 if opened else min(size or 1 << 62, max(gap, 4096))
    if ahead and data <= WHOLE_PAGE:  # small pages come with their metadata, and stay
        requests = (not initialised) + (not opened)
        rounds = (not initialised) + (not opened)
    else:
        requests = pieces + (0 if initialised else apart) + (not opened)
        rounds = 1 + (not initialised) + (not opened)
    return FileRequests(
        unit.fragment.id, path, step, columns, requests, tail + data, rounds, False, conditional
    )
