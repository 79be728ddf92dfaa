"""Where the files of a version lie: in the table's folder or in a base path (spec/table.md, section 13.4).

                     no base                   base is a dataset root      other base
    data file        <root>/data/<path>        <base>/data/<path>          <base>/<path>
    deletion file    <root>/_deletions/...     <base>/_deletions/...       error
    index            <root>/_indices/<uuid>/   <base>/_indices/<uuid>/     <base>/<uuid>/

`locate` is pure; `open_location` turns the address of a base into a store.  The root of a branch is its own
folder, so a branch finds the files of its table through a base path, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from pilum.errors import CorruptFileError
from pilum.io import Store, address_suspends
from pilum.table.folder_store import FolderStore, folder_of
from pilum.table.indices import index_base
from pilum.table.model import BasePath, DataFile, IndexMetadata, Manifest
from pilum.table.naming import DATA, DELETIONS, INDICES

__all__ = [
    "Location",
    "bases_suspend",
    "data_file_location",
    "index_location",
    "locate",
    "note_bases",
    "open_location",
]


class Location(NamedTuple):
    """Where an object is.

    Attributes:
        uri: address of a store: the table or one of its bases.
        key: path below it.
    """

    uri: str
    key: str


def locate(root: str, bases: Sequence[BasePath], base_id: int | None, folder: str, path: str) -> Location:
    """Where a file is.

    Args:
        root: address of the table.
        bases: its base paths.
        base_id: base the file names, None for the table itself.
        folder: ``data``, ``_deletions`` or ``_indices``.
        path: with the folder in front, relative to a dataset root.

    Raises:
        CorruptFileError: there is no such base, or it cannot hold such files.
    """
    if base_id is None:
        return Location(root, path)
    for base in bases:
        if base.id == base_id:
            address = base.path.rstrip("/") or "/"
            if base.is_dataset_root:
                return Location(address, path)
            if folder == DELETIONS:
                raise CorruptFileError(
                    f"{root}: deletion file {path} lies in base path {base.path}, which is no dataset"
                )
            return Location(address, path.removeprefix(folder + "/"))
    raise CorruptFileError(f"{root}: file {path} lies in base path {base_id}, which the table does not have")


def data_file_location(root: str, manifest: Manifest, file: DataFile) -> Location:
    """Where a data file of a version is.

    Raises:
        CorruptFileError: it names a base that the version does not have.
    """
    return locate(root, manifest.base_paths, file.base_id, DATA, f"{DATA}/{file.path}")


def index_location(root: str, manifest: Manifest, index: IndexMetadata) -> Location:
    """Where the folder of an index segment is.

    Raises:
        CorruptFileError: it names a base that the version does not have, or its uuid is not one.
    """
    if len(index.uuid) != 16:
        raise CorruptFileError(f"{root}: index {index.name} has a uuid of {len(index.uuid)} bytes")
    path = f"{INDICES}/{UUID(bytes=index.uuid)}"
    return locate(root, manifest.base_paths, index_base(index), INDICES, path)


def open_location(
    store: Store,
    uri: str,
    *,
    open_store: Callable[[str, Mapping[str, str] | None], Store] | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Store:
    """The store at the address of a base.

    Args:
        store: the table's store; addresses in it or above it are answered by itself.
        uri: the address, as in `Location`.
        open_store: how other addresses are opened; by default as the table itself was.
        storage_options: passed on to it.
    """
    around = store
    while True:
        folder = around.folder_at(uri)
        if folder is not None:
            return folder_of(around, folder)
        if not isinstance(around, FolderStore):
            if open_store is not None:
                return open_store(uri, storage_options)
            return around.elsewhere(uri)
        around = around.parent


def note_bases(store: Store, bases: Iterable[BasePath]) -> None:
    """Tell the store of a table which base has which id: it opens them (`Store.elsewhere`)."""
    if store.base_options is not None:
        store.base_options.note((base.path, base.id) for base in bases)


def bases_suspend(bases: Iterable[BasePath]) -> bool:
    """Whether reading files of these bases may wait for a network."""
    return any(address_suspends(base.path) for base in bases)
