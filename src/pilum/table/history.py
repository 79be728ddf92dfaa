"""The history of a table: what versions there are, when they were made, and by what (spec/table.md, section 4).

One listing finds all versions and the sizes of their files; each is then read by one request for the end of its
file, hundreds at once.  Of a manifest only what the list shows is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from pilum.errors import CorruptFileError, NotFoundError, UnsupportedError
from pilum.io import Store, current_runtime
from pilum.proto.lazy import table_pb2 as pb
from pilum.proto.lazy import wire
from pilum.table.external import settle
from pilum.table.flags import check_readable
from pilum.table.manifest_file import manifest_section
from pilum.table.model import Manifest
from pilum.table.naming import VERSIONS, parse_manifest_name, read_listing
from pilum.table.transaction import Transaction
from pilum.table.versions import load_version, read_transaction
from pilum.table.views import views

__all__ = ["VersionInfo", "describe_versions", "read_transactions", "summarize", "version_at"]

_WINDOW = 128
# Most manifests are smaller than this.
_TAIL = 64 << 10
# Ends of files that are read in one go.
_BATCH = 1024


_Entry = tuple[int, str, int]


class VersionInfo(NamedTuple):
    """A version in short.

    Attributes:
        version: number.
        timestamp_ns: time of its commit, nanoseconds since the epoch, UTC.
        summary: totals, see `summarize`.
    """

    version: int
    timestamp_ns: int
    summary: dict[str, int]


def summarize(manifest: Manifest) -> dict[str, int]:
    """Totals of a version under the names of the reference: rows, fragments, files and bytes."""
    fragments = manifest.fragments
    deletions = [one.deletion_file for one in fragments if one.deletion_file is not None]
    physical = sum(one.physical_rows for one in fragments)
    deleted = sum(one.num_deleted_rows for one in deletions)
    files = [file for one in fragments for file in one.files]
    return _totals(
        len(fragments), physical, len(files), sum(file.size for file in files), len(deletions), deleted
    )


def _totals(
    fragments: int, physical: int, files: int, size: int, deletion_files: int, deleted: int
) -> dict[str, int]:
    return {
        "total_data_file_rows": physical,
        "total_data_files": files,
        "total_deletion_file_rows": deleted,
        "total_deletion_files": deletion_files,
        "total_files_size": size,
        "total_fragments": fragments,
        "total_rows": physical - deleted,
    }


def count_encoded(encoded: Sequence[bytes], where: str) -> dict[str, int]:
    """The totals of fragments that are not decoded; a fifth of the time that decoding takes."""
    kinds = views()
    data = kinds.split_manifest(fragments=encoded).SerializeToString()
    try:
        view = kinds.simple_fragments.FromString(data)
        # A second file of a fragment would have been merged into the first, and the size would differ.
        simple = view.ByteSize() == len(data)
        if not simple:
            view = kinds.fragments.FromString(data)
    except wire.DecodeError as error:
        raise CorruptFileError(f"{where}: a fragment cannot be decoded: {error}") from error
    fragments = view.fragments
    if simple:
        sizes = [one.file.size for one in fragments]
    else:
        sizes = [file.size for one in fragments for file in one.files]
    physical = sum([one.physical_rows for one in fragments])
    deletions = [one.deletion_file for one in fragments]
    deletions = [pb.DeletionFile.FromString(one).num_deleted_rows for one in deletions if one]
    return _totals(len(encoded), physical, len(sizes), sum(sizes), len(deletions), sum(deletions))


# Above this many fragments it is cheaper to parse them all at once than to remember each.
_REMEMBERED = 512


class _Counts(dict[bytes, tuple[int, int, int, int, int]]):
    """Rows, files, their bytes, deletion files and deleted rows of encoded fragments, each counted once.

    Neighbouring versions have nearly all their fragments in common.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def __missing__(self, encoded: bytes) -> tuple[int, int, int, int, int]:
        total = count_encoded([encoded], self._where)
        counts = self[encoded] = (
            total["total_data_file_rows"],
            total["total_data_files"],
            total["total_files_size"],
            total["total_deletion_files"],
            total["total_deletion_file_rows"],
        )
        return counts

    def total(self, fragments: Sequence[bytes], where: str) -> dict[str, int]:
        """The totals of a version."""
        self._where = where
        if len(fragments) > _REMEMBERED:
            return count_encoded(fragments, where)
        if len(fragments) == 1:
            return _totals(1, *self[fragments[0]])
        return _totals(
            len(fragments), *map(sum, zip(_NOTHING, *[self[one] for one in fragments], strict=True))
        )


_NOTHING = (0, 0, 0, 0, 0)


async def describe_versions(store: Store) -> list[VersionInfo]:
    """All versions, ascending.  A version that cleanup removes meanwhile is left out.

    Raises:
        CorruptFileError: a manifest is damaged; the message names it.
    """
    entries: list[_Entry] = []
    await settle(store)
    for one in await store.list(VERSIONS):
        name = parse_manifest_name(one.path.rpartition("/")[2])
        if name is not None and name.scheme is not None:
            entries.append((name.version, one.path, one.size))
    read_listing([path.rpartition("/")[2] for _, path, _ in entries], store.uri)  # refuses mixed names
    entries.sort()

    async def describe(batch: list[_Entry]) -> list[VersionInfo]:
        wanted = [(path, max(0, size - _TAIL), size) for _, path, size in batch]
        tails: Sequence[Any]
        try:
            tails = await store.get_many(wanted, who="manifest")
        except NotFoundError:
            tails = [await _tail_if_there(store, *one) for one in wanted]
        counts = _Counts(store.uri)
        return [
            await _describe(store, version, path, bytes(tail), size - len(tail), counts)
            for (version, path, size), tail in zip(batch, tails, strict=True)
            if tail is not None
        ]

    batches = [entries[at : at + _BATCH] for at in range(0, len(entries), _BATCH)]
    result: list[VersionInfo] = []
    stream = current_runtime().map_ordered(describe, batches, window=_WINDOW, suspends=store.suspends)
    async with aclosing(stream):
        async for infos in stream:
            result.extend(infos)
    return result


async def _tail_if_there(store: Store, path: str, start: int, end: int) -> Any:
    try:
        return await store.get(path, start, end, who="manifest")
    except NotFoundError:
        return None


async def _describe(
    store: Store, version: int, path: str, data: bytes, skipped: int, counts: _Counts
) -> VersionInfo:
    """What the end of a manifest file says; reads the rest of the manifest when that is not there."""
    where = f"{store.uri}/{path}"
    found = manifest_section(data, skipped, where)
    if isinstance(found, int):
        data = bytes(await store.get(path, found, skipped, who="manifest")) + data
        found = manifest_section(data, found, where)
    if isinstance(found, int):
        raise CorruptFileError(f"{where}: the manifest does not begin at offset {found}")
    try:
        view = views().version.FromString(found)
    except wire.DecodeError as error:
        raise CorruptFileError(f"{where}: the manifest cannot be decoded: {error}") from error
    check_readable(view.reader_flags, view.writer_flags, where)
    if view.HasField("fragment_tree"):
        raise UnsupportedError(f"{where}: pilum cannot read fragment trees")
    time = view.timestamp
    return VersionInfo(
        version, time.seconds * 1_000_000_000 + time.nanos, counts.total(view.fragments[:], where)
    )


async def version_at(store: Store, timestamp_ns: int) -> int:
    """The newest version that was committed at a time or before.

    Raises:
        NotFoundError: there is none.
    """
    found = [one.version for one in await describe_versions(store) if one.timestamp_ns <= timestamp_ns]
    if not found:
        raise NotFoundError(f"{store.uri} has no version as old as {timestamp_ns} ns since the epoch")
    return found[-1]


async def read_transactions(store: Store, versions: Sequence[int]) -> list[Transaction | None]:
    """What made each of some versions; None where that was not recorded.

    Raises:
        NotFoundError: there is no such version.
    """

    async def read(version: int) -> Transaction | None:
        return await read_transaction(store, await load_version(store, version))

    result = []
    stream = current_runtime().map_ordered(read, versions, window=_WINDOW, suspends=store.suspends)
    async with aclosing(stream):
        async for transaction in stream:
            result.append(transaction)
    return result
