"""Which files a version consists of (spec/table.md, sections 2 and 13.4).  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pilum.table.deletions import deletion_path
from pilum.table.indices import index_files
from pilum.table.locations import data_file_location, index_location, locate
from pilum.table.model import Manifest
from pilum.table.naming import DELETIONS, TRANSACTIONS

__all__ = [
    "DATA_FILE",
    "DELETION_FILE",
    "INDEX_FILE",
    "MANIFEST",
    "TRANSACTION_FILE",
    "TrackedFile",
    "files_of",
]

# What a file is, in the words of the reference.
MANIFEST = "manifest"
DATA_FILE = "data file"
DELETION_FILE = "deletion file"
TRANSACTION_FILE = "transaction file"
INDEX_FILE = "index file"


class TrackedFile(NamedTuple):
    """A file that a version refers to.

    Attributes:
        uri: address of the table or of the base it lies in.
        path: key below it; one that ends in ``/`` is a folder whose files are not recorded.
        kind: `MANIFEST`, `DATA_FILE`, `DELETION_FILE`, `TRANSACTION_FILE` or `INDEX_FILE`.
        size: bytes, 0 when that is not recorded.
    """

    uri: str
    path: str
    kind: str
    size: int = 0


def files_of(root: str, manifest: Manifest, path: str) -> Iterator[TrackedFile]:
    """All files of a version.

    Args:
        root: address of the table.
        manifest: the version.
        path: key of its manifest.

    Raises:
        CorruptFileError: a file lies in a base path that the version does not have.
    """
    yield TrackedFile(root, path, MANIFEST)
    if manifest.transaction_file:
        yield TrackedFile(root, f"{TRANSACTIONS}/{manifest.transaction_file}", TRANSACTION_FILE)
    for fragment in manifest.fragments:
        for file in fragment.files:
            uri, key = data_file_location(root, manifest, file)
            yield TrackedFile(uri, key, DATA_FILE, file.size)
        deletion = fragment.deletion_file
        if deletion is not None:
            key = deletion_path(fragment.id, deletion)
            uri, key = locate(root, manifest.base_paths, deletion.base_id, DELETIONS, key)
            yield TrackedFile(uri, key, DELETION_FILE)
    for index in manifest.indices:
        uri, folder = index_location(root, manifest, index)
        files = index_files(index)
        for name, size in files:
            yield TrackedFile(uri, f"{folder}/{name}", INDEX_FILE, size)
        if not files:
            yield TrackedFile(uri, f"{folder}/", INDEX_FILE)
