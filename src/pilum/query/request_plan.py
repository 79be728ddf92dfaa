"""The request plan: what a query will ask of the store, told before anything is read.

Scheduling is pure, so where the metadata of a file is known (an earlier query of the session, or a file that is
fetched whole) the plan is exact: these byte ranges, merged into these requests, in so many rounds that wait for each
other.  For files that have not been opened it is an estimate from the manifest: the end of the file, then the
metadata of its pages, then the data.  Columns that are read only for rows that pass a filter are counted as if all
rows passed, and marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pilum import config
from pilum.file import FileReader
from pilum.io import Store
from pilum.io.ranges import plan_requests
from pilum.query.alike import known_range
from pilum.query.fragment_reader import FragmentReader, fetched_whole
from pilum.query.scan import Scan, plan_groups
from pilum.query.search import Search, search_groups
from pilum.query.snapshot import Snapshot
from pilum.query.units import Unit
from pilum.schema import Schema

__all__ = ["ColumnRequests", "FileRequests", "RequestPlan", "plan_requests_of"]


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
    """The requests one step of a query makes to one data file.

    Attributes:
        fragment_id: whose file it is.
        path: key of the file in its store.
        step: ``stage 1``, …, ``late``, ``vectors``: as in the plan's measurements.
        columns: what each column needs.
        requests, nbytes: to be made.
        rounds: how many of them wait for one before.
        exact: False for an estimate.
        conditional: whether it is read only for the rows that pass a filter; then these are the most.
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
        other."""
        steps: dict[tuple[int, str], int] = {}
        for one in self.files:
            key = one.fragment_id, one.step
            steps[key] = max(steps.get(key, 0), one.rounds)
        fragments: dict[int, int] = {}
        for (fragment_id, _), rounds in steps.items():
            fragments[fragment_id] = fragments.get(fragment_id, 0) + rounds
        return max(fragments.values(), default=0)

    @property
    def exact(self) -> bool:
        """Whether no part is an estimate or depends on a filter."""
        return all(one.exact and not one.conditional for one in self.files)

    def __str__(self) -> str:
        about = "" if self.exact else "about "
        lines = [f"{about}{self.requests} requests, {self.nbytes:,} bytes, {self.rounds} rounds"]
        for one in self.files[:50]:
            columns = ", ".join(f"{column.name} {column.nbytes:,}" for column in one.columns)
            notes = ("" if one.exact else ", estimated") + (", if rows pass" if one.conditional else "")
            lines.append(
                f"  fragment {one.fragment_id} {one.step}: {one.requests} requests, {one.nbytes:,} bytes, "
                f"{one.rounds} rounds{notes} [{columns}]"
            )
        if len(self.files) > 50:
            lines.append(f"  … and {len(self.files) - 50} more")
        return "\n".join(lines) + "\n"


def plan_requests_of(plan: Scan | Search) -> RequestPlan:
    """The requests that running a plan will make.  Pure: nothing is read."""
    snapshot = plan.snapshot
    files: list[FileRequests] = []
    if isinstance(plan, Search):
        if plan.request.fast_search:
            return RequestPlan(())
        filtered = plan.before is not None and bool(plan.before.stages)
        for item in search_groups(plan):
            for run in item.runs:
                values = None if plan.queries[0].multi else known_range(snapshot, run, plan.vector)
                for unit in run.units:
                    seen: set[str] = set()
                    if plan.before is not None:
                        files += _of_stages(plan.before, unit, seen)
                    if values is None:
                        files += _of_unit(snapshot, unit, plan.vector, "vectors", filtered, seen)
                    else:
                        files.append(_of_values(unit, plan.vector, values, "vectors", filtered))
        return RequestPlan(tuple(files))
    for group in plan_groups(plan):
        for unit in group.units:
            files += _of_stages(plan, unit, set())
    return RequestPlan(tuple(files))


def _of_stages(scan: Scan, unit: Unit, seen: set[str]) -> Iterator[FileRequests]:
    for number, stage in enumerate(scan.stages):
        yield from _of_unit(scan.snapshot, unit, stage.schema, f"stage {number + 1}", number > 0, seen)
    yield from _of_unit(scan.snapshot, unit, scan.late, "late", bool(scan.stages), seen)


def _of_unit(
    snapshot: Snapshot, unit: Unit, schema: Schema, step: str, conditional: bool, seen: set[str]
) -> Iterator[FileRequests]:
    """Requests for rows of one fragment; ``seen``: files that an earlier step has opened or fetched whole."""
    if not schema.fields:
        return
    fragment = unit.fragment
    known = FragmentReader.known(snapshot, fragment, schema)
    if known is not None:
        for reader in known.files:
            plan = reader.planned(unit.start, unit.stop) if isinstance(reader, FileReader) else None
            if plan is not None and isinstance(reader, FileReader):
                yield _exact(reader, plan, fragment.id, step, conditional)
            else:
                yield _estimate(snapshot, unit, reader.path, reader.schema, 0, step, conditional, opened=True)
        return
    size = fetched_whole(snapshot, fragment, schema)
    if size and unit.start == 0 and unit.stop == fragment.physical_rows:
        path = "data/" + fragment.files[0].path
        if path in seen:
            return  # the bytes are here
        seen.add(path)
        columns = tuple(ColumnRequests(field.name, 0, 0) for field in schema.fields)
        yield FileRequests(fragment.id, path, step, columns, 1, size, 1, True, conditional)
        return
    for data_file in fragment.files:
        held = set(data_file.fields)
        names = [field.name for field in schema.fields if {leaf.id for leaf in field.leaves()} & held]
        if not names:
            continue
        store, path = snapshot.place_of(data_file)
        opened = path in seen or snapshot.session.cache.get((store.uri, path)) is not None
        seen.add(path)
        part = schema.project(names)
        yield _estimate(snapshot, unit, path, part, data_file.size, step, conditional, opened=opened)


def _of_values(
    unit: Unit, schema: Schema, values: tuple[int, int], step: str, conditional: bool
) -> FileRequests:
    """The request for the values of a fragment that is like its neighbours."""
    size = values[1] - values[0]
    columns = (ColumnRequests(schema.fields[0].name, size, 1),)
    path = "data/" + unit.fragment.files[0].path
    return FileRequests(unit.fragment.id, path, step, columns, 1, size, 1, True, conditional)


def _exact(reader: FileReader, plan: Any, fragment_id: int, step: str, conditional: bool) -> FileRequests:
    requests = _merged(reader.store, plan.ranges)
    sizes: dict[str, list[int]] = {field.name: [0, 0] for field in plan.projection.schema.fields}
    names = [field.name for field in plan.projection.schema.fields for _ in field.leaves()]
    for slot in plan.slots:
        entry = sizes[names[slot.leaf]]
        ranges = plan.ranges[slot.first : slot.last]
        entry[0] += sum(high - low for low, high in ranges)
        entry[1] += len(ranges)
    columns = tuple(ColumnRequests(name, size, count) for name, (size, count) in sizes.items())
    nbytes = sum(high - low for low, high in requests)
    rounds = min(1, len(requests))
    return FileRequests(
        fragment_id, reader.path, step, columns, len(requests), nbytes, rounds, True, conditional
    )


def _merged(store: Store, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return plan_requests(ranges, gap=store.block_size, max_size=config.max_request_size())


def _estimate(
    snapshot: Snapshot,
    unit: Unit,
    path: str,
    schema: Schema,
    size: int,
    step: str,
    conditional: bool,
    *,
    opened: bool,
) -> FileRequests:
    rows = unit.stop - unit.start
    columns = tuple(
        ColumnRequests(field.name, int(rows * schema.project([field.name]).row_bytes), 0)
        for field in schema.fields
    )
    data = sum(column.nbytes for column in columns)
    if size:
        data = min(data, size)
    tail = 0 if opened else min(size or 1 << 62, max(snapshot.store.block_size, 4096))
    # The end of the file, the metadata of the pages, the data.
    rounds = 2 if opened else 3
    return FileRequests(
        unit.fragment.id, path, step, columns, rounds, tail + data, rounds, False, conditional
    )
