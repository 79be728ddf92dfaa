"""Cleanup (spec/table.md, sections 14 and 15.9).

Cleanup removes manifests first, oldest first, then the files that only they named: interrupted anywhere, every
version that is still listed is whole.  Before files go it looks again for versions that were committed
meanwhile.  A file that no version ever named may belong to a commit that is going on: it goes only when it is
older than seven days, and stays when the store cannot tell its age.  The same holds for the temporary files of
writers that were killed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

from pilum.errors import InvalidInputError, NotFoundError, PilumError
from pilum.io import Store, current_runtime
from pilum.table.cleanup_plan import (
    CleanupPlan,
    CleanupPolicy,
    KnownVersion,
    RemovableFile,
    choose_versions,
    plan_cleanup,
)
from pilum.table.files import (
    DATA_FILE,
    DELETION_FILE,
    INDEX_FILE,
    MANIFEST,
    TRANSACTION_FILE,
    TrackedFile,
    files_of,
)
from pilum.table.folder_store import folder_of
from pilum.table.model import Manifest
from pilum.table.naming import (
    DATA,
    DELETIONS,
    INDICES,
    TRANSACTIONS,
    VERSIONS,
    NamingScheme,
    parse_manifest_name,
)
from pilum.table.references import list_tags, main_store
from pilum.table.refs import TREE
from pilum.table.versions import find_versions, load_version
from pilum.table.waiting import Pace

__all__ = ["UNVERIFIED_AGE", "CleanupResult", "auto_cleanup", "cleanup", "parse_duration"]

# Age from which a file that no version names is taken for a leftover.
UNVERIFIED_AGE = timedelta(days=7)
DEFAULT_AGE = timedelta(days=14)

_WINDOW = 64
# Files removed by one request.
_TOGETHER = 1000
_FOLDERS = (DATA, DELETIONS, TRANSACTIONS, INDICES, VERSIONS)


@dataclass(frozen=True, slots=True)
class CleanupResult:
    """What cleanup removed, or would remove.

    Attributes:
        versions: numbers of the versions.
        files: the files, manifests among them.
        failed_deletes: files that could not be removed; they are not among ``files``.
    """

    versions: tuple[int, ...] = ()
    files: tuple[RemovableFile, ...] = field(default=(), repr=False)
    failed_deletes: int = 0

    def count(self, kind: str) -> int:
        """How many files of a kind."""
        return sum(one.kind == kind for one in self.files)

    @property
    def bytes_removed(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files)

    @property
    def old_versions(self) -> int:
        """How many versions."""
        return len(self.versions)

    @property
    def data_files_removed(self) -> int:
        """How many data files."""
        return self.count(DATA_FILE)

    @property
    def transaction_files_removed(self) -> int:
        """How many transaction files."""
        return self.count(TRANSACTION_FILE)

    @property
    def index_files_removed(self) -> int:
        """How many files of indices."""
        return self.count(INDEX_FILE)

    @property
    def deletion_files_removed(self) -> int:
        """How many deletion files."""
        return self.count(DELETION_FILE)


async def cleanup(
    store: Store,
    *,
    older_than: timedelta | None = None,
    retain_versions: int | None = None,
    versions: Collection[int] | None = None,
    current: int | None = None,
    delete_unverified: bool = False,
    error_if_tagged_old_versions: bool = True,
    delete_rate_limit: int | None = None,
    dry_run: bool = False,
    now_ns: int | None = None,
) -> CleanupResult:
    """Remove old versions of a table, or of a branch, and the files that nothing needs any more.

    Args:
        store: store of the table or branch.
        older_than: remove versions older than this; 14 days when neither this, nor ``retain_versions``, nor
            ``versions`` is given.
        retain_versions: keep the newest n.
        versions: remove only versions among these.
        current: version the caller is on, by default the newest; it and newer ones stay.
        delete_unverified: also remove young files that no version names.  Only safe when nobody writes.
        error_if_tagged_old_versions: refuse when a tagged version would go, instead of keeping it.
        delete_rate_limit: most files removed in a second.
        dry_run: remove nothing.
        now_ns: the time, nanoseconds since the epoch.

    Raises:
        NotFoundError: there is no table.
        InvalidInputError: a tagged version would go.
    """
    now = time.time_ns() if now_ns is None else now_ns
    if older_than is None and retain_versions is None and versions is None:
        older_than = DEFAULT_AGE
    policy = CleanupPolicy(
        None if older_than is None else now - int(older_than.total_seconds() * 1e9),
        retain_versions,
        versions,
        error_if_tagged_old_versions,
    )
    if delete_rate_limit is not None and delete_rate_limit < 1:
        raise InvalidInputError(f"delete_rate_limit is {delete_rate_limit}; it must be positive")
    state = await _State.read(store)
    newest = max(state.known)
    tagged = {
        tag.version: name for name, tag in (await list_tags(state.main)).items() if tag.branch == state.branch
    }
    times = [(one.version, one.timestamp_ns) for one in state.known.values()]
    chosen = choose_versions(times, newest if current is None else min(current, newest), tagged, policy)
    plan = state.plan(chosen)
    unfinished = await _unfinished(store, now, delete_unverified)
    if dry_run:
        files = await _old_enough(store, plan.files, now, delete_unverified)
        return CleanupResult(plan.versions, (*plan.manifests, *files, *unfinished))
    pace = Pace(delete_rate_limit)
    removed, failed = await _delete(store, plan.manifests, pace)
    # Whoever committed since, and so may have restored an old version, keeps its files.
    needed = await state.files_of_newer(store)
    files = await _old_enough(
        store, [one for one in plan.files if _key(one) not in needed], now, delete_unverified
    )
    more, also_failed = await _delete(store, (*files, *unfinished), pace)
    return CleanupResult(plan.versions, (*removed, *more), failed + also_failed)


def _key(one: RemovableFile) -> str:
    return "/".join(one.path.split("/")[:2]) + "/" if one.kind == INDEX_FILE else one.path


@dataclass(frozen=True, slots=True)
class _State:
    """A table as cleanup sees it.

    Attributes:
        main: store of the main branch.
        branch: name of the branch that is cleaned, None for main.
        known: its versions.
        others: what detached versions and other branches need here.
        listing: key and size of the files.
        manifests: version -> key and size of its manifest.
    """

    main: Store
    branch: str | None
    known: dict[int, KnownVersion]
    others: list[frozenset[str]]
    listing: list[tuple[str, int]]
    manifests: dict[int, tuple[str, int]]

    @classmethod
    async def read(cls, store: Store) -> _State:
        # Files first: one that appears after its manifest was looked for would seem to be nobody's.
        listing = [(one.path, one.size) for folder in _FOLDERS for one in await store.list(folder)]
        manifests = {}
        detached = []
        for path, size in listing:
            name = parse_manifest_name(path.rpartition("/")[2]) if path.startswith(VERSIONS + "/") else None
            if name is not None and name.scheme is None:
                detached.append(name.version)
            elif name is not None:
                manifests[name.version] = (path, size)
        found = await find_versions(store)
        if not found.versions:
            raise NotFoundError(f"no dataset at {store.uri}: it has no versions")
        loaded = await _load(store, sorted({*found.versions, *manifests}), found.scheme)
        known = {
            manifest.version: KnownVersion(
                manifest.version, manifest.timestamp_ns, _own_files(store, manifest, path)
            )
            for manifest, path in loaded
        }
        newest = max(known, default=0)
        branch = next((manifest.branch for manifest, _ in loaded if manifest.version == newest), None)
        main = main_store(store, branch)
        others = [_own_files(store, *one) for one in await _load(store, detached, found.scheme)]
        others += await _needed_by_branches(main, store)
        return cls(main, branch, known, others, listing, manifests)

    def plan(self, chosen: Iterable[int]) -> CleanupPlan:
        """What removing some versions leads to."""
        gone = [self.known[version] for version in chosen if version in self.manifests]
        numbers = {one.version for one in gone}
        remaining = [one.files for one in self.known.values() if one.version not in numbers]
        return plan_cleanup(gone, [*remaining, *self.others], self.listing, self.manifests)

    async def files_of_newer(self, store: Store) -> frozenset[str]:
        """What versions need that were committed since."""
        found = await find_versions(store)
        newer = [version for version in found.versions if version not in self.known]
        loaded = await _load(store, newer, found.scheme)
        return frozenset().union(*(_own_files(store, *one) for one in loaded))


def _own_files(store: Store, manifest: Manifest, path: str) -> frozenset[str]:
    """Keys below the table's own folder that a version names, through base paths, too.

    A base path may lie in that folder, or be it under an address that does not show it (a link, another scheme).
    Names of data files are unique, so one counts wherever its base path says that it is.
    """
    keys = set()
    for file in files_of(store.uri, manifest, path):
        folder = store.folder_at(file.uri)
        if folder is not None:
            keys.add(_key_of(file._replace(path=f"{folder}/{file.path}" if folder else file.path)))
        elif file.kind == DATA_FILE:
            keys.add(f"{DATA}/{file.path.rpartition('/')[2]}")
    return frozenset(keys)


def _key_of(file: TrackedFile) -> str:
    return "/".join(file.path.split("/")[:2]) + "/" if file.kind == INDEX_FILE else file.path


async def _load(store: Store, versions: Iterable[int], scheme: NamingScheme) -> list[tuple[Manifest, str]]:
    """Manifests with their keys; those that are gone meanwhile are left out."""

    async def load(version: int) -> tuple[Manifest, str] | None:
        try:
            file = await load_version(store, version, scheme)
        except NotFoundError:
            return None
        return file.manifest, file.path

    result = []
    stream = current_runtime().map_ordered(load, list(versions), window=_WINDOW, suspends=store.suspends)
    async with aclosing(stream):
        async for one in stream:
            if one is not None:
                result.append(one)
    return result


_BRANCH_MANIFEST = re.compile(rf"({TREE}/.+)/{VERSIONS}/([^/]+)")


async def _needed_by_branches(main: Store, store: Store) -> list[frozenset[str]]:
    """Keys that other branches may need from this one, unfinished branches included.

    Names of files are unique, so a file counts wherever its base path says that it is: a table may have been
    moved since.
    """
    folders: dict[str, list[int]] = {}
    for one in await main.list(TREE):
        found = _BRANCH_MANIFEST.fullmatch(one.path)
        name = None if found is None else parse_manifest_name(found[2])
        if found is not None and name is not None:
            folders.setdefault(found[1], []).append(name.version)
    result = []
    for folder, versions in folders.items():
        branch = folder_of(main, folder)
        if branch.uri == store.uri:
            continue
        scheme = (await find_versions(branch)).scheme
        for manifest, path in await _load(branch, versions, scheme):
            result.append(
                frozenset(
                    _key_of(file) for file in files_of(branch.uri, manifest, path) if file.uri != branch.uri
                )
            )
    return result


async def _old_enough(
    store: Store, files: Iterable[RemovableFile], now_ns: int, delete_unverified: bool
) -> tuple[RemovableFile, ...]:
    """The files that may go: verified ones, and others by their age."""
    limit = now_ns / 1e9 - UNVERIFIED_AGE.total_seconds()

    async def may_go(one: RemovableFile) -> bool:
        if one.verified or delete_unverified:
            return True
        try:
            modified = await store.modified(one.path)
        except NotFoundError:
            return False
        return modified is not None and modified <= limit

    files = list(files)
    stream = current_runtime().map_ordered(
        may_go, files, window=_WINDOW, suspends=store.suspends, chunk=_WINDOW
    )
    async with aclosing(stream):
        answers = [answer async for answer in stream]
    return tuple(one for one, yes in zip(files, answers, strict=True) if yes)


_KIND_OF_FOLDER = {
    DATA: DATA_FILE,
    DELETIONS: DELETION_FILE,
    TRANSACTIONS: TRANSACTION_FILE,
    INDICES: INDEX_FILE,
    VERSIONS: MANIFEST,
}


async def _unfinished(store: Store, now_ns: int, delete_unverified: bool) -> list[RemovableFile]:
    """Files that writers began and never finished, by their age: one that is being written is young."""
    limit = now_ns / 1e9 - UNVERIFIED_AGE.total_seconds()
    return [
        RemovableFile(one.path, one.size, kind, False)
        for folder, kind in _KIND_OF_FOLDER.items()
        for one, changed in await store.leftovers(folder)
        if delete_unverified or changed <= limit
    ]


async def _delete(
    store: Store, files: Iterable[RemovableFile], pace: Pace
) -> tuple[list[RemovableFile], int]:
    """Remove files in their order; returns those that are gone, and how many are not."""
    removed, failed = [], 0
    if store.suspends and not pace.limited:
        return await _delete_together(store, list(files))
    for one in files:
        await pace.step()
        try:
            await store.delete(one.path)
        except NotFoundError:
            continue  # somebody else cleans up, too
        except (PilumError, OSError):
            failed += 1
            if one.kind == MANIFEST and one.verified:
                raise  # the files of a version that stays must stay
            continue
        removed.append(one)
    return removed, failed


async def _delete_together(store: Store, files: list[RemovableFile]) -> tuple[list[RemovableFile], int]:
    """As `_delete`, many files with one request where the store can."""
    removed: list[RemovableFile] = []
    failed = 0
    for at in range(0, len(files), _TOGETHER):
        some = files[at : at + _TOGETHER]
        try:
            await store.delete_many([one.path for one in some])
        except (PilumError, OSError):
            failed += len(some)
            if any(one.kind == MANIFEST and one.verified for one in some):
                raise  # the files of a version that stays must stay
            continue
        removed += some
    return removed, failed


# -- after commits -------------------------------------------------------------------------------------

_UNITS = {
    "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "d": 86400, "day": 86400, "w": 604800, "week": 604800,
    "M": 2_630_016, "month": 2_630_016, "y": 31_557_600, "year": 31_557_600,
}  # fmt: skip
_DURATION = re.compile(r"(\d+)\s*([A-Za-z]+)\s*")


def parse_duration(text: str) -> timedelta:
    """A duration such as ``14days`` or ``1h 30m``.

    Raises:
        InvalidInputError: it is not one.
    """
    seconds, position = 0.0, 0
    stripped = text.strip()
    while found := _DURATION.match(stripped, position):
        unit = found[2] if found[2] in _UNITS else found[2].removesuffix("s")
        if unit not in _UNITS:
            break
        seconds += int(found[1]) * _UNITS[unit]
        position = found.end()
    if not stripped or position != len(stripped):
        raise InvalidInputError(f"{text!r} is no duration; expected something like '14days' or '1h 30m'")
    return timedelta(seconds=seconds)


async def auto_cleanup(store: Store, manifest: Manifest) -> CleanupResult | None:
    """The cleanup that the table's config asks for after the commit of a version; None when it is not due.

    Raises:
        InvalidInputError: the config is not understood.
    """
    config = manifest.config
    interval = config.get("lance.auto_cleanup.interval")
    if interval is None:
        return None
    try:
        every = int(interval)
        retain = config.get("lance.auto_cleanup.retain_versions")
        keep = None if retain is None else int(retain)
    except ValueError as error:
        raise InvalidInputError(f"{store.uri}: config of the automatic cleanup: {error}") from None
    if every and manifest.version % every:
        return None
    older_than = config.get("lance.auto_cleanup.older_than")
    return await cleanup(
        store,
        older_than=None if older_than is None else parse_duration(older_than),
        retain_versions=keep,
        current=manifest.version,
        error_if_tagged_old_versions=False,
    )
