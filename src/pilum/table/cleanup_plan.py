"""What cleanup may remove (spec/table.md, section 15.9).  Pure.

    version 1   old, removed         its files, unless a version that stays names them, too: "verified"
    version 2   tagged, stays
    version 3   newest, stays        their files stay
    other files that no version names: perhaps of a commit that is going on, so only when they are old

Versions that stay: the current one and all newer ones, tagged ones, detached ones, and those of every branch.
Files with unknown endings, and everything outside of the folders of the format, are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilum.errors import InvalidInputError
from pilum.table.files import DATA_FILE, DELETION_FILE, INDEX_FILE, MANIFEST, TRANSACTION_FILE

__all__ = ["CleanupPlan", "CleanupPolicy", "KnownVersion", "RemovableFile", "choose_versions", "plan_cleanup"]


@dataclass(frozen=True, slots=True)
class CleanupPolicy:
    """Which versions are to go.  Conditions that are given must all hold.

    Attributes:
        before_ns: committed before this time, nanoseconds since the epoch.
        retain_versions: not among the newest n.
        versions: one of these.
        error_if_tagged: refuse when a tagged version would go; else it is kept silently.
    """

    before_ns: int | None = None
    retain_versions: int | None = None
    versions: Collection[int] | None = None
    error_if_tagged: bool = True

    def __post_init__(self) -> None:
        if self.retain_versions is not None and self.retain_versions < 1:
            raise InvalidInputError(f"retain_versions is {self.retain_versions}; at least one version stays")


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version of the table.

    Attributes:
        version: number.
        timestamp_ns: time of its commit.
        files: keys in the table's own folder that it names; index segments as ``_indices/<uuid>/``.
    """

    version: int
    timestamp_ns: int
    files: frozenset[str]


@dataclass(frozen=True, slots=True)
class RemovableFile:
    """A file that no remaining version names.

    Attributes:
        path: key.
        size: bytes.
        kind: as in `files`.
        verified: whether a removed version named it; if not, only its age shows that nobody needs it.
    """

    path: str
    size: int
    kind: str
    verified: bool


@dataclass(frozen=True, slots=True)
class CleanupPlan:
    """What to remove, in this order.

    Attributes:
        versions: numbers of the versions that go, oldest first.
        manifests: their files, in the same order.
        files: other files.
    """

    versions: tuple[int, ...]
    manifests: tuple[RemovableFile, ...]
    files: tuple[RemovableFile, ...]


def choose_versions(
    known: Iterable[tuple[int, int]], current: int, tagged: Mapping[int, str], policy: CleanupPolicy
) -> list[int]:
    """The versions to remove, oldest first.

    Args:
        known: numbers and commit times of all versions.
        current: version that the caller is on; it and newer ones stay.
        tagged: version -> a tag that names it.
        policy: what is to go.

    Raises:
        InvalidInputError: a tagged version would go.
    """
    ordered = sorted(known)
    newest = (
        {version for version, _ in ordered[-policy.retain_versions :]} if policy.retain_versions else set()
    )
    chosen = [
        version
        for version, timestamp in ordered
        if version < current
        and version not in newest
        and (policy.before_ns is None or timestamp < policy.before_ns)
        and (policy.versions is None or version in policy.versions)
    ]
    kept = {tagged[version]: version for version in chosen if version in tagged}
    if kept and policy.error_if_tagged:
        raise InvalidInputError(
            f"{len(kept)} tagged versions would be removed: {kept}; delete the tags, or keep these versions "
            "with error_if_tagged_old_versions=False"
        )
    return [version for version in chosen if version not in tagged]


# Which files cleanup looks at, and what they are.  The named group is what versions refer to.
_PATTERNS = (
    (re.compile(r"(?P<key>data/.+\.lance)"), DATA_FILE),
    (re.compile(r"(?P<key>_deletions/[^/]+\.(?:arrow|bin))"), DELETION_FILE),
    (re.compile(r"(?P<key>_transactions/[^/]+\.txn)"), TRANSACTION_FILE),
    (re.compile(r"(?P<key>_indices/[0-9a-f-]{36}/).+"), INDEX_FILE),
    # Manifests that were staged and not published.
    (re.compile(r"(?P<key>_versions/(?:\.tmp_.+|[^/]+\.manifest-[0-9a-f-]+))"), MANIFEST),
)
_SIDECAR = re.compile(r"(data/.+?)/[^/]+")


def plan_cleanup(
    removed: Sequence[KnownVersion],
    remaining: Iterable[frozenset[str]],
    listing: Iterable[tuple[str, int]],
    manifest_files: Mapping[int, tuple[str, int]],
) -> CleanupPlan:
    """What follows from removing some versions.

    Args:
        removed: versions that go.
        remaining: keys that each version which stays names, branches and detached versions included.
        listing: key and size of all files below the folders of the table.
        manifest_files: version -> key and size of its manifest.
    """
    needed = frozenset().union(*remaining)
    verified = frozenset().union(*(one.files for one in removed)) - needed
    files: list[RemovableFile] = []
    data: dict[str, RemovableFile] = {}
    sidecars: list[tuple[str, int, str]] = []
    for path, size in listing:
        for pattern, kind in _PATTERNS:
            found = pattern.fullmatch(path)
            if found is not None:
                key = found["key"]
                if key not in needed:
                    one = RemovableFile(path, size, kind, key in verified)
                    files.append(one)
                    if kind == DATA_FILE:
                        data[path.removesuffix(".lance")] = one
                break
        else:
            beside = _SIDECAR.fullmatch(path)
            if beside is not None:
                sidecars.append((path, size, beside[1]))
    # Blobs beside a data file go before it, so that they are found again after an interruption.
    blobs = [
        RemovableFile(path, size, DATA_FILE, data[stem].verified)
        for path, size, stem in sidecars
        if stem in data
    ]
    manifests = [
        RemovableFile(*manifest_files[one.version], MANIFEST, True)
        for one in sorted(removed, key=lambda one: one.version)
    ]
    return CleanupPlan(tuple(sorted(one.version for one in removed)), tuple(manifests), (*blobs, *files))
