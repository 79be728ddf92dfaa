"""What looking after a dataset tells: what a cleanup removed or would remove, what fields take on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "CleanupCandidateFile",
    "CleanupExplanation",
    "CleanupReferencedBranch",
    "CleanupStats",
    "DataStatistics",
    "FieldStatistics",
]


@dataclass(frozen=True)
class CleanupStats:
    """What a cleanup removed.

    Attributes:
        bytes_removed: bytes of all files.
        old_versions: number of versions.
        data_files_removed, transaction_files_removed, index_files_removed, deletion_files_removed: numbers of
            files.
        failed_deletes: files that could not be removed.
    """

    bytes_removed: int = 0
    old_versions: int = 0
    data_files_removed: int = 0
    transaction_files_removed: int = 0
    index_files_removed: int = 0
    deletion_files_removed: int = 0
    failed_deletes: int = 0


@dataclass(frozen=True)
class CleanupCandidateFile:
    """A file that a cleanup would remove.

    Attributes:
        path: key below the dataset.
        kind: ``manifest``, ``data``, ``deletion``, ``transaction`` or ``index``.
        size_bytes: its size.
        unverified: whether no version ever named it, so that only its age speaks for removing it.
    """

    path: str
    kind: str
    size_bytes: int
    unverified: bool


@dataclass(frozen=True)
class CleanupReferencedBranch:
    """A branch whose versions keep files of this one.

    Attributes:
        name: of the branch.
        referenced_version: version it was made from.
        cleanup_candidate: whether the cleanup would remove that version.
    """

    name: str
    referenced_version: int
    cleanup_candidate: bool


@dataclass(frozen=True)
class CleanupExplanation:
    """What a cleanup would do.

    Attributes:
        read_version: version it was computed on.
        stats: what it would remove.
        candidate_files: the files, when they were asked for.
        candidate_file_limit: how many at most.
        candidate_files_truncated: whether there are more.
        referenced_branches: branches that keep files of this one.
        warnings: what to think of before.
    """

    read_version: int
    stats: CleanupStats
    candidate_files: list[CleanupCandidateFile] = field(default_factory=list)
    candidate_file_limit: int = 1000
    candidate_files_truncated: bool = False
    referenced_branches: list[CleanupReferencedBranch] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class FieldStatistics:
    """What a field takes on disk.

    Attributes:
        id: of the field.
        bytes_on_disk: bytes of its pages, compressed.
    """

    id: int
    bytes_on_disk: int


@dataclass
class DataStatistics:
    """What the data takes on disk.

    Attributes:
        fields: one entry for each field, in the order of the schema.
    """

    fields: list[FieldStatistics]
