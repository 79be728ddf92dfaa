"""Many small fragments at once: their requests are asked for together.

`FragmentReader` reads one fragment.  Where a group of small ones is wanted, the store is asked once for all of
them (`Store.get_many`): over a network the requests overlap, on a local disk they are read in one pass without the
GIL.  What needs more than one request, or another format, is read the ordinary way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pilum.encoding import Decoded
from pilum.file import FileReader
from pilum.query.fragment_reader import FragmentReader, fetched_whole
from pilum.query.snapshot import Snapshot
from pilum.schema import Schema
from pilum.table import Fragment

__all__ = ["open_fragments", "read_decoded"]


async def open_fragments(
    snapshot: Snapshot, fragments: Sequence[Fragment], schema: Schema
) -> list[FragmentReader]:
    """Open fragments of which all rows will be read; small files come whole, all of them in one go.

    Raises:
        CorruptFileError, NotFoundError: as `FragmentReader.open`, for the first fragment that fails.
    """
    wanted: list[tuple[str, int, int]] = []
    whole: set[int] = set()
    found: list[FragmentReader | None] = []
    for fragment in fragments:
        known = FragmentReader.known(snapshot, fragment, schema)
        found.append(known)
        if known is None:
            size = fetched_whole(snapshot, fragment, schema)
            if size:
                wanted.append(("data/" + fragment.files[0].path, 0, size))
                whole.add(fragment.id)
    if all(found):
        return [reader for reader in found if reader is not None]
    bodies = iter(await snapshot.store.get_many(wanted, who="file") if wanted else ())
    readers: list[FragmentReader] = []
    for reader, fragment in zip(found, fragments, strict=True):
        if reader is None:
            if fragment.id in whole:
                reader = await FragmentReader.of_body(snapshot, fragment, schema, next(bodies))
            else:
                reader = await FragmentReader.open(snapshot, fragment, schema)
        readers.append(reader)
    return readers


async def read_decoded(
    readers: Sequence[FragmentReader], spans: Sequence[tuple[int, int]]
) -> list[list[Decoded] | pa.Array]:
    """Rows ``[start, stop)`` of each fragment's only column, as `FragmentReader.read_decoded`."""
    results: list[list[Decoded] | pa.Array] = [None] * len(readers)
    planned: list[tuple[int, FileReader, Any]] = []
    wanted = []
    for position, (reader, (start, stop)) in enumerate(zip(readers, spans, strict=True)):
        only = reader.only
        # Those that are read together lie in one store: that of the first.
        if type(only) is not FileReader or (planned and only.store is not planned[0][1].store):
            results[position] = await reader.read_decoded(start, stop)
            continue
        plan = await only.plan_decoded(start, stop)
        if len(plan.ranges) != 1 or only.body is not None:
            results[position] = (await only.execute_decoded(plan))[0]
            continue
        low, high = plan.ranges[0]
        wanted.append((only.path, low, high))
        planned.append((position, only, plan))
    if wanted:
        store = planned[0][1].store
        buffers = await store.get_many(wanted, who="data")
        for (position, only, plan), buffer in zip(planned, buffers, strict=True):
            results[position] = (await only.execute_decoded(plan, [buffer]))[0]
    return results
