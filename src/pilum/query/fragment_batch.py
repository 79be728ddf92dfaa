"""Many small fragments at once: their requests are asked for together, their rows become one batch.

`FragmentReader` reads one fragment.  Where a group of small ones is wanted, the store is asked once for all of
them (`Store.get_many`): over a network the requests overlap, on a local disk they are read in one pass without the
GIL.  What needs more than one round, or another format, is read the ordinary way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pilum.encoding import Decoded, assemble
from pilum.errors import PilumError
from pilum.file import FileReader
from pilum.file.plan import DAMAGE, ReadPlan, decode_pages
from pilum.file.reader import OFFLOAD_BYTES
from pilum.io import Bytes, current_runtime
from pilum.io.ranges import assemble as assemble_ranges
from pilum.io.ranges import merge_ranges
from pilum.query.fragment_reader import FragmentReader, fetched_whole, gather
from pilum.query.snapshot import Snapshot
from pilum.schema import Schema
from pilum.table import Fragment

__all__ = ["open_fragments", "read_decoded", "read_together"]

Span = tuple[int, int]


async def open_fragments(
    snapshot: Snapshot,
    fragments: Sequence[Fragment],
    schema: Schema,
    bodies: Mapping[str, Bytes] | None = None,
) -> list[FragmentReader]:
    """Open fragments of which all rows will be read; small files come whole, all of them in one go.

    Args:
        snapshot: the table.
        fragments: what to open.
        schema: the stored columns to read.
        bodies: data files that are here already, by path.

    Raises:
        CorruptFileError, NotFoundError: as `FragmentReader.open`, for the first fragment that fails.
    """
    wanted: list[tuple[str, int, int]] = []
    whole: set[int] = set()
    found: list[FragmentReader | None] = []
    for position, fragment in enumerate(fragments):
        known = FragmentReader.known(snapshot, fragment, schema)
        if known is None:
            size = fetched_whole(snapshot, fragment, schema)
            if size and not (bodies and "data/" + fragment.files[0].path in bodies):
                wanted.append(("data/" + fragment.files[0].path, 0, size))
                whole.add(position)
        elif bodies:
            known = known.with_bodies(bodies)
        found.append(known)
    if all(found):
        return [reader for reader in found if reader is not None]
    fetched = iter(await snapshot.store.get_many(wanted, who="file") if wanted else ())
    others = []
    for position, fragment in enumerate(fragments):
        if position in whole:
            found[position] = await FragmentReader.of_body(snapshot, fragment, schema, next(fetched))
        elif found[position] is None:
            others.append(position)
    opened = await gather(
        [
            FragmentReader.open_with(
                snapshot, fragments[position], schema, fragments[position].physical_rows, bodies or {}
            )
            for position in others
        ],
        suspends=snapshot.suspends,
    )
    for position, reader in zip(others, opened, strict=True):
        found[position] = reader
    return [reader for reader in found if reader is not None]


async def read_decoded(
    readers: Sequence[FragmentReader], spans: Sequence[Span]
) -> list[list[Decoded] | pa.Array]:
    """Rows ``[start, stop)`` of each fragment's only column, as `FragmentReader.read_decoded`."""
    suspends = any(reader.files and reader.files[0].store.suspends for reader in readers)
    if suspends and len(readers) > 1:
        # The metadata of all of them in one round, and what is read alone at the same time.
        await gather([reader.initialise() for reader in readers], suspends=True)
    results: list[list[Decoded] | pa.Array] = [None] * len(readers)
    alone: list[tuple[int, Awaitable[Any]]] = []
    planned: list[tuple[int, FileReader, Any]] = []
    wanted = []
    for position, (reader, (start, stop)) in enumerate(zip(readers, spans, strict=True)):
        only = reader.only
        # Those that are read together lie in one store: that of the first.
        if type(only) is not FileReader or (planned and only.store is not planned[0][1].store):
            alone.append((position, reader.read_decoded(start, stop)))
            continue
        plan = await only.plan_decoded(start, stop)
        if len(plan.ranges) != 1 or only.at_hand(plan.ranges) is not None:
            alone.append((position, _first_leaf(only, plan)))
            continue
        low, high = plan.ranges[0]
        wanted.append((only.path, low, high))
        planned.append((position, only, plan))
    for position, found in zip(
        [position for position, _ in alone],
        await gather([one for _, one in alone], suspends=suspends),
        strict=True,
    ):
        results[position] = found
    if wanted:
        store = planned[0][1].store
        buffers = await store.get_many(wanted, who="data")
        for (position, only, plan), buffer in zip(planned, buffers, strict=True):
            results[position] = (await only.execute_decoded(plan, [buffer]))[0]
    return results


async def _first_leaf(reader: FileReader, plan: ReadPlan) -> list[Decoded]:
    return (await reader.execute_decoded(plan))[0]


async def read_together(
    readers: Sequence[FragmentReader], spans: Sequence[Span], schema: Schema, *, suspends: bool
) -> pa.RecordBatch:
    """Rows ``[start, stop)`` of each fragment, all of them in one batch.

    Args:
        readers: fragments opened with ``schema``.
        spans: the rows of each.
        schema: the stored columns.
        suspends: whether the store may wait for the network.
    """
    files: list[Any] = [reader.only for reader in readers]
    if not schema.fields or not all(
        type(file) is FileReader and file.store is files[0].store for file in files
    ):
        return await _one_by_one(readers, spans, suspends)
    plans: list[ReadPlan] = await gather(
        [file.plan_decoded(*span) for file, span in zip(files, spans, strict=True)], suspends=suspends
    )
    wanted: list[tuple[str, int, int]] = []
    merged = []
    known = []
    for file, plan in zip(files, plans, strict=True):
        assert file is not None
        here = file.at_hand(plan.ranges) or [None] * len(plan.ranges)
        missing = [one for one, piece in zip(plan.ranges, here, strict=True) if piece is None]
        ranges = merge_ranges(missing, file.store.block_size)
        merged.append((missing, ranges))
        known.append(here)
        wanted += [(file.path, low, high) for low, high in ranges]
    store = files[0].store
    fetched = iter(await store.get_many(wanted, who="data") if wanted else [])
    buffers: list[list[Bytes]] = []
    size = 0
    for here, (missing, ranges) in zip(known, merged, strict=True):
        pieces = [next(fetched) for _ in ranges]
        more = iter(assemble_ranges(missing, ranges, pieces))
        buffers.append([next(more) if piece is None else piece for piece in here])
        size += sum(map(len, buffers[-1]))
    if suspends and size > OFFLOAD_BYTES:
        batch = await current_runtime().offload(_decode, files, plans, buffers)
    else:
        batch = _decode(files, plans, buffers)
    if batch is None:
        # What is wrong, or needs another round, is read again alone: the error then says where.
        return await _one_by_one(readers, spans, suspends)
    return batch


def _decode(
    files: Sequence[Any], plans: Sequence[ReadPlan], buffers: Sequence[list[Bytes]]
) -> pa.RecordBatch | None:
    """One batch of all files, or None where that is not simply possible.  Pure."""
    resolved = plans[0].projection
    leaves: list[list[Decoded]] = [[] for _ in resolved.columns]
    for file, plan, pieces in zip(files, plans, buffers, strict=True):
        pages = decode_pages(file.path, plan, pieces)
        if isinstance(pages, ReadPlan):
            return None
        for all_pages, own, scale in zip(leaves, pages, resolved.scales, strict=True):
            if sum([page.num_rows for page in own]) != plan.num_rows * scale:
                return None
            all_pages += own
    rows = sum([plan.num_rows for plan in plans])
    arrays = []
    for position, field in enumerate(resolved.schema.fields):
        low, high = resolved.spans[position], resolved.spans[position + 1]
        try:
            array = assemble(field, leaves[low:high])
        except (PilumError, *DAMAGE):
            return None
        if len(array) != rows:
            return None
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=resolved.arrow)


async def _one_by_one(
    readers: Sequence[FragmentReader], spans: Sequence[Span], suspends: bool
) -> pa.RecordBatch:
    batches = await gather(
        [reader.read(*span) for reader, span in zip(readers, spans, strict=True)], suspends=suspends
    )
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
