"""Clones: tables made from a version of another one (spec/table.md, section 13.3).

A shallow clone refers to the files of its source through a base path; a deep one copies them.  Either keeps
the version number, and its history begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress

from pilum.errors import AlreadyExistsError
from pilum.io import Store, current_runtime
from pilum.table.committing import CommitLock, commit
from pilum.table.deletions import deletion_path
from pilum.table.indices import index_files
from pilum.table.locations import Location, data_file_location, index_location, locate, open_location
from pilum.table.model import Manifest
from pilum.table.naming import DATA, DELETIONS, INDICES
from pilum.table.operations import Clone
from pilum.table.versions import find_versions, load_manifest

__all__ = ["deep_clone", "plan_copies", "shallow_clone"]

_WINDOW = 16
_PIECE = 8 << 20


async def shallow_clone(
    source: Store,
    version: int,
    target: Store,
    *,
    ref_name: str | None = None,
    commit_lock: CommitLock | None = None,
) -> Manifest:
    """Make a table that refers to the files of a version of another one.

    Args:
        source: store of the table, or of the branch, that is cloned.
        version: its version.
        target: where the new table is to be; its first version has the same number.
        ref_name: name of the branch that is cloned, None for main.
        commit_lock: see `commit`.

    Raises:
        AlreadyExistsError: there is a table at the target.
        NotFoundError: there is no such version.
    """
    content = await load_manifest(source, version)
    clone = Clone(True, ref_name, version, source.address(), None, content)
    return await commit(target, clone, read_version=version, commit_lock=commit_lock)


async def deep_clone(
    source: Store,
    version: int,
    target: Store,
    *,
    ref_name: str | None = None,
    open_base: Callable[[Store, str], Store] = open_location,
) -> Manifest:
    """Make a table with copies of all files of a version of another one.

    Args:
        source, version, target, ref_name: see `shallow_clone`.
        open_base: opens the address of a base path of the source.

    Raises:
        AlreadyExistsError: there is a table at the target.
        NotFoundError: there is no such version, or a file of it is missing.
    """
    if (await find_versions(target)).versions:
        raise AlreadyExistsError(f"dataset already exists: {target.uri}")
    content = await load_manifest(source, version)
    copies = plan_copies(source.uri, content)
    stores: dict[str, Store] = {location.uri: open_base(source, location.uri) for location in copies.values()}
    listed = await _with_companions(copies, stores)

    async def copy(entry: tuple[str, Location]) -> None:
        to, location = entry
        await _copy(stores[location.uri], location.key, target, to)

    stream = current_runtime().map_ordered(
        copy, list(listed.items()), window=_WINDOW, suspends=source.suspends or target.suspends
    )
    async with aclosing(stream):
        async for _ in stream:
            pass
    clone = Clone(False, ref_name, version, source.address(), None, content)
    return await commit(target, clone, read_version=version)


def plan_copies(root: str, manifest: Manifest) -> dict[str, Location]:
    """What a deep clone copies: key in the new table -> where it is now.  Pure.

    Keys that end in ``/`` are folders: index segments whose files are not recorded, and the blobs beside a
    data file.
    """
    copies = {}
    for fragment in manifest.fragments:
        for file in fragment.files:
            location = data_file_location(root, manifest, file)
            copies[f"{DATA}/{file.path}"] = location
            if file.path.endswith(".lance"):
                stem = location.key.removesuffix(".lance")
                copies[f"{DATA}/{file.path.removesuffix('.lance')}/"] = Location(location.uri, stem + "/")
        deletion = fragment.deletion_file
        if deletion is not None:
            path = deletion_path(fragment.id, deletion)
            copies[path] = locate(root, manifest.base_paths, deletion.base_id, DELETIONS, path)
    for index in manifest.indices:
        location = index_location(root, manifest, index)
        folder = f"{INDICES}/{location.key.rpartition('/')[2]}/"
        files = [name for name, _ in index_files(index)]
        copies.update({folder + name: Location(location.uri, f"{location.key}/{name}") for name in files})
        if not files:
            copies[folder] = Location(location.uri, location.key + "/")
    return copies


async def _with_companions(
    copies: Mapping[str, Location], stores: Mapping[str, Store]
) -> dict[str, Location]:
    """The files to copy; folders are replaced by what is in them."""
    below: dict[tuple[str, str], dict[str, list[str]]] = {}
    result = {}
    for to, location in copies.items():
        if not to.endswith("/"):
            result[to] = location
            continue
        parent, _, name = location.key.rstrip("/").rpartition("/")
        group = (location.uri, parent)
        if group not in below:  # one listing for all data files of a base
            found: dict[str, list[str]] = {}
            for one in await stores[location.uri].list(parent):
                rest = one.path[len(parent) + 1 :] if parent else one.path
                found.setdefault(rest.partition("/")[0], []).append(rest)
            below[group] = found
        prefix = f"{parent}/" if parent else ""
        for rest in below[group].get(name, ()):
            if rest != name:
                result[to + rest[len(name) + 1 :]] = Location(location.uri, prefix + rest)
    return result


async def _copy(source: Store, path: str, target: Store, to: str) -> None:
    size = (await source.head(path)).size
    writer = await target.create(to)
    try:
        for start in range(0, size, _PIECE):
            await writer.write([await source.get(path, start, min(start + _PIECE, size), who="copy")])
        await writer.finish()
    except BaseException:
        with suppress(Exception):
            await writer.abort()
        raise
