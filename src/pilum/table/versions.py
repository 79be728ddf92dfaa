"""Finding and reading versions (spec/table.md, sections 4.2 and 5.1).

The newest version is found by one listing of ``_versions/``, or without one: on a local disk where the version hint
can be relied on (`hint`), and where a database keeps the owners of versions (`external`).  A version is read by one
request for its whole manifest file.
"""

from __future__ import annotations

import bisect
import os
from typing import TYPE_CHECKING, NamedTuple

from pilum.errors import CorruptFileError, NotFoundError, StoreError, UnsupportedError
from pilum.file.late import prepare
from pilum.io import LocalStore, Store
from pilum.table import locations, transaction
from pilum.table.alive import find_alive, note_alive
from pilum.table.external import newest_item, settle
from pilum.table.hidden import hides_any_lineage, with_hidden_lineage
from pilum.table.hint import parse_hint, read_hint
from pilum.table.legacy import has_trusted_counts, with_counts
from pilum.table.manifest_file import ManifestFile, parse_manifest_file
from pilum.table.model import Manifest
from pilum.table.naming import (
    DETACHED_BIT,
    TRANSACTIONS,
    VERSION_HINT,
    VERSIONS,
    NamingScheme,
    VersionListing,
    manifest_path,
    newest_name,
    parse_manifest_name,
    read_listing,
)

if TYPE_CHECKING:
    from pilum.table.transaction import Transaction

__all__ = [
    "Newest",
    "VersionFile",
    "find_newest",
    "find_versions",
    "latest_version",
    "list_versions",
    "load_again",
    "load_manifest",
    "load_version",
    "read_transaction",
]


# Stores list at least so many names in a page.
_PAGE = 1000


class VersionFile(NamedTuple):
    """A version with the transaction that made it.

    Attributes:
        manifest: the decoded manifest.
        transaction: encoded inline transaction, None when it is only in its own file.
        path: key of the manifest.
    """

    manifest: Manifest
    transaction: bytes | None
    path: str


class Newest(NamedTuple):
    """The newest version of a table.

    Attributes:
        version: number; 0 when there is no table.
        scheme: how its manifests are named.
        newer: how many versions there are after the known one; those that a hint or an item vouches for are
            counted, not looked for.
    """

    version: int
    scheme: NamingScheme
    newer: int


async def find_versions(store: Store) -> VersionListing:
    """All versions of a table and the naming scheme it uses; reads no manifest.

    Raises:
        CorruptFileError: both naming schemes lie side by side.
    """
    await settle(store)
    return read_listing(await store.list_names(VERSIONS), store.uri)


async def list_versions(store: Store) -> list[int]:
    """Version numbers, ascending; detached versions are not among them.  Empty when there is no table."""
    return (await find_versions(store)).versions


async def latest_version(store: Store) -> int:
    """The newest version number; one listing at most.

    Raises:
        NotFoundError: there is no table.
    """
    newest, _, _ = await find_newest(store)
    if not newest:
        raise NotFoundError(f"no dataset at {store.uri}: it has no versions")
    return newest


async def find_newest(store: Store, since: int | None = None) -> Newest:
    """The newest version; one listing at most.

    Args:
        store: the table's store.
        since: a version that is known; None: it does not matter how many are newer.

    Raises:
        CorruptFileError: both naming schemes lie side by side.
    """
    hinted = read_hint(store) if store.external is None else await newest_item(store)
    if hinted is not None:
        return Newest(*hinted, max(0, hinted[0] - (since or 0)))
    found = await _recent_versions(store, since)
    if isinstance(found, Newest):
        return found
    versions = found.versions
    newer = len(versions) - bisect.bisect_right(versions, since or 0)
    return Newest(versions[-1] if versions else 0, found.scheme, newer)


async def _recent_versions(store: Store, since: int | None) -> VersionListing | Newest:
    """The newest versions, those after ``since`` at least, or the newest; one request where names sort by age.

    V2 names count down, so that the first page of an ordered listing has the newest versions.
    """
    if isinstance(store, LocalStore):
        encoded = await store.list_encoded(VERSIONS)
        if len(encoded) > _PAGE and (newest := _newest_of_many(encoded, since)) is not None:
            return newest
        return read_listing(map(os.fsdecode, encoded), store.uri)
    try:
        names = await store.first_names(VERSIONS)
    except (StoreError, UnsupportedError):
        if store.lists:
            raise
        # A web server that serves files: it may have the hint, and answers for single names.
        return await _versions_by_hint(store)
    complete = len(names) < _PAGE
    found = read_listing(names, store.uri)
    if not complete and (
        found.scheme is not NamingScheme.V2
        or not found.versions
        or (since is not None and found.versions[0] > since)
    ):
        return await find_versions(store)
    return found


def _newest_of_many(names: list[bytes], since: int | None) -> Newest | None:
    """The newest version of a long listing; None where it must be read name by name."""
    first = newest_name(names)
    newest = None if first is None else parse_manifest_name(first)
    if newest is None:
        return None
    newer = 0
    if since is not None and since != newest.version:
        known = manifest_path(since).rpartition("/")[2].encode()
        newer = sum(name < known and len(name) == len(known) for name in names)
    return Newest(newest.version, NamingScheme.V2, newer)


async def _versions_by_hint(store: Store) -> VersionListing:
    """The newest version where there are no listings: that of the hint, or one that follows it without a gap.

    Raises:
        NotFoundError: there is no hint.
        CorruptFileError: it is none.
    """
    try:
        version = parse_hint(bytes(await store.get_all(VERSION_HINT, who="hint")))
    except NotFoundError:
        raise NotFoundError(
            f"{store.uri} cannot be listed, and has no {VERSION_HINT}: say which version to open"
        ) from None
    if version is None:
        raise CorruptFileError(f"{store.uri}/{VERSION_HINT} names no version")
    for scheme in (NamingScheme.V2, NamingScheme.V1):
        newest = version - 1
        try:
            while True:
                await store.head(manifest_path(newest + 1, scheme))
                newest += 1
        except NotFoundError:
            if newest >= version:
                return VersionListing([newest], scheme, [])
    raise NotFoundError(f"{store.uri} has no version {version}, which its hint names")


async def load_manifest(store: Store, version: int, *, lazy: bool = False) -> Manifest:
    """Read the manifest of a version.

    Args:
        store: the table's store.
        version: number; with bit 63 set a detached version.
        lazy: decode and check fragments on first use, however few there are.

    Raises:
        NotFoundError: the table has no such version.
        CorruptFileError: the file contradicts the format; the message names it.
        UnsupportedError: the version needs features that pilum does not have.
    """
    return (await load_version(store, version, lazy=lazy)).manifest


async def load_again(store: Store, seen: Manifest) -> Manifest:
    """Read the manifest of a version again; it is not decoded again if the file is still the same."""
    for scheme in (NamingScheme.V2, NamingScheme.V1):
        try:
            data = await store.get_all(manifest_path(seen.version, scheme), who="manifest")
        except NotFoundError:
            continue
        if seen.has_bytes(bytes(data)):
            return seen
        break
    return await load_manifest(store, seen.version, lazy=True)


async def load_version(
    store: Store, version: int, scheme: NamingScheme | None = None, *, lazy: bool = False
) -> VersionFile:
    """Read a version together with its inline transaction.

    Args:
        store: the table's store.
        version: number; with bit 63 set a detached version.
        scheme: naming scheme when it is known, else V2 and then V1 is tried.
        lazy: decode and check fragments on first use, however few there are.

    Raises:
        NotFoundError, CorruptFileError, UnsupportedError: see `load_manifest`.
    """
    prepare()
    if not 0 < version < 1 << 64:
        raise NotFoundError(f"{store.uri} has no version {version}: versions start at 1")
    schemes = [NamingScheme.V2, NamingScheme.V1] if scheme is None else [scheme]
    if version & DETACHED_BIT:
        schemes = schemes[:1]
    for candidate in schemes:
        path = manifest_path(version, candidate)
        try:
            data = await store.get_all(path, who="manifest")
        except NotFoundError:
            continue
        where = f"{store.uri}/{path}"
        content = bytes(data)
        alive = find_alive(store.uri, version, content)
        if alive is not None:
            locations.note_bases(store, alive[0].base_paths)
            return VersionFile(*alive, path)
        parsed: ManifestFile = parse_manifest_file(content, where, lazy=lazy)
        if parsed.manifest.version != version:
            raise CorruptFileError(
                f"{where} is named version {version} but holds version {parsed.manifest.version}"
            )
        manifest = parsed.manifest
        locations.note_bases(store, manifest.base_paths)
        if not has_trusted_counts(manifest):
            manifest = await with_counts(store, manifest)
        if hides_any_lineage(manifest):
            manifest = await with_hidden_lineage(store, manifest)
        manifest.note_bytes(content)
        note_alive(store.uri, manifest, parsed.transaction)
        return VersionFile(manifest, parsed.transaction, path)
    if await settle(store, version):
        return await load_version(store, version, scheme)
    if store.external is not None and await store.external.find(version) is not None:
        raise NotFoundError(
            f"{store.uri} has no version {version}, which is an item of {store.external!r}; if the dataset was "
            "removed without its items, drop it once more"
        )
    raise NotFoundError(f"{store.uri} has no version {version}")


async def read_transaction(store: Store, version: VersionFile) -> Transaction | None:
    """The transaction that made a version; None when it was not recorded or its file is gone.

    Raises:
        CorruptFileError: it cannot be decoded.
    """
    if version.transaction is not None:
        return transaction.decode_transaction(version.transaction, f"{store.uri}/{version.path}")
    name = version.manifest.transaction_file
    if not name or "/" in name:
        return None
    path = f"{TRANSACTIONS}/{name}"
    try:
        data = await store.get_all(path, who="transaction")
    except NotFoundError:
        return None
    return transaction.decode_transaction(bytes(data), f"{store.uri}/{path}")
