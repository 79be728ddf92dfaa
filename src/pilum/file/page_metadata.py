"""Loading the metadata of pages, which says where the rows of a page are: the last step before data can be asked for.

All columns and pages of a read come in one round; over a network small pages, and those that are wanted whole, bring
their data along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum.encoding import Range, Rows
from pilum.errors import PilumError
from pilum.file.in_flight import wait_for
from pilum.file.metadata import Column, relocated
from pilum.file.plan import DAMAGE, ResolvedProjection, damaged_page, scaled
from pilum.file.scattered import FEW_ROWS

if TYPE_CHECKING:
    from pilum.file.reader import FileReader

__all__ = ["WHOLE_PAGE", "load_pages"]

# Over a network a page up to this size comes with its metadata, however few of its rows are wanted, and up to the
# larger size if all of them are: a further round trip would take longer.
_SMALL_PAGE = 256 << 10
WHOLE_PAGE = 8 << 20
_MORE_PAGES = 256 << 10  # bytes of metadata of pages that are read for the next take


async def load_pages(reader: FileReader, resolved: ResolvedProjection, rows: Rows) -> None:
    """Load the metadata of the pages that hold ``rows``; all columns in one round."""
    missing = [
        (leaf, column, number)
        for leaf, column in enumerate(resolved.columns)
        if not column.ready
        for number in _pages_to_load(reader, column, scaled(rows, resolved.scales[leaf]))
    ]
    if not missing:
        return
    cache = reader.cache
    if cache is None or not reader.store.suspends or reader.body is not None:
        await _load(reader, resolved, rows, missing)
        return
    # Other units of the file want the same pages: each is asked for once.  A page is its own key, since readers
    # that share it also see that it has been initialised.
    running = {id(job[1].pages[job[2]]): job for job in missing}
    waits = {key: found for key in running if (found := cache.in_flight.running(key)) is not None}
    own = [job for key, job in running.items() if key not in waits]
    if own:
        with cache.in_flight.loading([id(column.pages[number]) for _, column, number in own]):
            await _load(reader, resolved, rows, own)
    if waits:
        for future in set(waits.values()):
            await wait_for(future)
        await load_pages(reader, resolved, rows)  # whoever loaded them may have failed


def _pages_to_load(reader: FileReader, column: Column, rows: Rows) -> list[int]:
    """The pages whose metadata must be here, or all of them for scattered rows where no network is between.

    The next take will want others, and a column that has them all reads rows of all in one pass.
    """
    numbers = column.uninitialised(rows)
    if reader.store.suspends or (isinstance(rows, range) and len(rows) > FEW_ROWS):
        return numbers
    missing = [number for number, page in enumerate(column.pages) if not page.initialised]
    if len(numbers) >= max(2, len(column.pages) // 8):
        return missing
    wanted = [one for number in missing for one in column.pages[number].metadata_ranges()]
    return missing if sum([high - low for low, high in wanted]) <= _MORE_PAGES else numbers


async def _load(
    reader: FileReader, resolved: ResolvedProjection, rows: Rows, missing: list[tuple[int, Column, int]]
) -> None:
    jobs: list[tuple[int, Column, int, int]] = []
    ranges: list[Range] = []
    ahead: list[Range] = []
    pages: dict[int, list[int]] = {}
    for leaf, column, number in missing:
        wanted = column.pages[number].metadata_ranges()
        jobs.append((leaf, column, number, len(wanted)))
        ranges.extend(wanted)
        pages.setdefault(leaf, []).append(number)
    if reader.store.suspends:
        for leaf, numbers in pages.items():
            ahead += _worth_reading(resolved.columns[leaf], numbers, scaled(rows, resolved.scales[leaf]))
    if sum([high - low for low, high in ahead]) > WHOLE_PAGE:
        ahead = []
    buffers = await reader.fetch(ranges + ahead, who="page metadata")
    if ahead:
        reader.keep(ahead, buffers[len(ranges) :])
    at = 0
    touched: dict[int, tuple[Column, int]] = {}
    for leaf, column, number, size in jobs:
        try:
            column.pages[number].initialise(buffers[at : at + size])
        except PilumError as error:
            raise relocated(error, reader.path, resolved.leaf_name(leaf), number) from None
        except DAMAGE as error:
            raise damaged_page(error, reader.path, resolved, leaf, number) from error
        at += size
        touched[column.index] = (column, resolved.scales[leaf])
    for column, scale in touched.values():
        column.ready = all(page.initialised for page in column.pages)
        if reader.cache is not None:
            whole = column.whole
            whole.ready = column.ready
            reader.cache.put((reader.store.uri, reader.path, column.index), whole, whole.nbytes)
        if reader.body is not None and column.ready and column.whole is column:
            reader.metadata.container.keep_alike(column, scale, reader.body)


def _worth_reading(column: Column, pages: list[int], rows: Rows) -> list[Range]:
    """The pages of which all bytes are worth reading together with their metadata."""
    extents = column.extents
    wanted = [number for number in pages if extents[number][1] - extents[number][0] <= _SMALL_PAGE]
    if len(wanted) < len(pages) and isinstance(rows, range):
        starts = column.starts
        wanted = [
            number
            for number in pages
            if extents[number][1] - extents[number][0] <= _SMALL_PAGE
            or (rows.start <= starts[number] and starts[number + 1] <= rows.stop)
        ]
    return [extents[number] for number in wanted if extents[number][0] < extents[number][1]]
