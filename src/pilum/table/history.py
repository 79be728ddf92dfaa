"""The history of a table: what versions there are, when they were made, and by what (spec/table.md, section 4).

One listing finds all versions and the sizes of their files; each is then read by one request for the end of its
file, many at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import NamedTuple

from pilum.errors import CorruptFileError, NotFoundError
from pilum.io import Store, current_runtime
from pilum.proto.lazy import table_pb2 as pb
from pilum.proto.lazy import wire
from pilum.table.codec import decode_manifest, split_manifest
from pilum.table.manifest_file import manifest_section
from pilum.table.model import Manifest
from pilum.table.naming import VERSIONS, parse_manifest_name, read_listing
from pilum.table.transaction import Transaction
from pilum.table.versions import load_version, read_transaction
from pilum.table.views import views

__all__ = [
    "VersionInfo",
    "describe_versions",
    "read_transactions",
    "summarize",
    "version_at",
]

_WINDOW = 128
# Most manifests are smaller than this.
_TAIL = 64 << 10


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


async def describe_versions(store: Store) -> list[VersionInfo]:
    """All versions, ascending.  A version that cleanup removes meanwhile is left out.

    Raises:
        CorruptFileError: a manifest is damaged; the message names it.
    """
    entries = []
    for one in await store.list(VERSIONS):
        name = parse_manifest_name(one.path.rpartition("/")[2])
        if name is not None and name.scheme is not None:
            entries.append((name.version, one.path, one.size))
    read_listing([path.rpartition("/")[2] for _, path, _ in entries], store.uri)  # refuses mixed names
    entries.sort()

    async def describe(entry: tuple[int, str, int]) -> VersionInfo | None:
        version, path, size = entry
        try:
            manifest = await _read_end(store, path, size)
        except NotFoundError:
            return None
        encoded = manifest.encoded_fragments
        summary = summarize(manifest) if encoded is None else count_encoded(encoded, path)
        return VersionInfo(version, manifest.timestamp_ns, summary)

    result = []
    stream = current_runtime().map_ordered(describe, entries, window=_WINDOW, suspends=store.suspends)
    async with aclosing(stream):
        async for info in stream:
            if info is not None:
                result.append(info)
    return result


async def _read_end(store: Store, path: str, size: int) -> Manifest:
    """The manifest of a file without its indices and its transaction."""
    where = f"{store.uri}/{path}"
    tail, _ = await store.get_tail(path, min(_TAIL, size), size=size, who="manifest")
    data, skipped = bytes(tail), size - len(tail)
    found = manifest_section(data, skipped, where)
    if isinstance(found, int):
        data = bytes(await store.get(path, found, skipped, who="manifest")) + data
        found = manifest_section(data, found, where)
    if isinstance(found, int):
        raise CorruptFileError(f"{where}: the manifest does not begin at offset {found}")
    return decode_manifest(split_manifest(found, where), (), where)


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
