"""Reading and changing tags and branches, and finding what a reference names (spec/table.md, section 13).

Every function takes the store of the *main* branch, also when a branch is concerned: `main_store` finds it.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pilum.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from pilum.io import Store, current_runtime
from pilum.table.committing import commit
from pilum.table.folder_store import FolderStore, folder_of
from pilum.table.model import Manifest
from pilum.table.naming import NamingScheme, manifest_path
from pilum.table.operations import Clone
from pilum.table.refs import (
    BRANCHES,
    MAIN,
    TAGS,
    TREE,
    Branch,
    Tag,
    branch_folder,
    branch_path,
    check_branch_name,
    check_tag_name,
    decode_branch,
    decode_tag,
    encode_branch,
    encode_tag,
    tag_path,
)
from pilum.table.versions import find_versions, latest_version, load_manifest

__all__ = [
    "Reference",
    "Resolved",
    "branch_store",
    "create_branch",
    "create_tag",
    "delete_branch",
    "delete_tag",
    "get_branch",
    "get_tag",
    "list_branches",
    "list_tags",
    "main_store",
    "resolve",
    "update_tag",
]

T = TypeVar("T")

# A version of the current branch, a tag, or a branch (None: main) with a version (None: its newest).
Reference: TypeAlias = int | str | tuple[str | None, int | None]

_WINDOW = 64


class Resolved(NamedTuple):
    """What a reference names.

    Attributes:
        store: store of the branch.
        branch: its name, None for main.
        version: version number.
    """

    store: Store
    branch: str | None
    version: int


def main_store(store: Store, branch: str | None) -> Store:
    """The store of the main branch.

    Args:
        store: store of a table or of a branch.
        branch: name of the branch, as the manifest says; None for main.
    """
    folder = branch_folder(branch)
    if not folder:
        return store
    if isinstance(store, FolderStore):
        rest = store.folder.removesuffix(folder).rstrip("/")
        return folder_of(store.parent, rest)
    uri = store.uri.replace("\\", "/")
    return store.elsewhere(uri.removesuffix("/" + folder)) if uri.endswith("/" + folder) else store


def branch_store(main: Store, branch: str | None) -> Store:
    """The store of a branch; of main it is main's own."""
    return folder_of(main, branch_folder(branch))


async def resolve(main: Store, reference: Reference, *, current: str | None = None) -> Resolved:
    """Find what a reference names; the version itself is not looked for.

    Args:
        main: store of the main branch.
        reference: a version number of the current branch, the name of a tag, or (branch, version), either of
            which may be None: main, and the newest version.
        current: branch that a bare number refers to.

    Raises:
        NotFoundError: no such tag or branch.
    """
    if isinstance(reference, str):
        tag = await get_tag(main, reference)
        return Resolved(branch_store(main, tag.branch), tag.branch, tag.version)
    branch, version = (current, reference) if isinstance(reference, int) else reference
    if branch == MAIN:
        branch = None
    if branch is not None:
        await get_branch(main, branch)
    store = branch_store(main, branch)
    return Resolved(store, branch, await latest_version(store) if version is None else version)


# -- tags ----------------------------------------------------------------------------------------------


async def get_tag(main: Store, name: str) -> Tag:
    """Read a tag.

    Raises:
        NotFoundError: there is none of that name.
        CorruptFileError: its file is damaged.
    """
    check_tag_name(name)
    path = tag_path(name)
    try:
        data = await main.get_all(path, who="tag")
    except NotFoundError:
        raise NotFoundError(f"{main.uri}: tag {name} does not exist") from None
    return decode_tag(bytes(data), f"{main.uri}/{path}")


async def list_tags(main: Store) -> dict[str, Tag]:
    """All tags by their name."""
    return await _read_all(main, TAGS, decode_tag)


async def create_tag(
    main: Store, name: str, branch: str | None, version: int, *, metadata: Mapping[str, str] | None = None
) -> Tag:
    """Give a version a name; the version is then protected from cleanup.

    Raises:
        AlreadyExistsError: the tag exists.
        NotFoundError: the version does not.
        InvalidInputError: the name is not allowed.
    """
    check_tag_name(name)
    now = time.time_ns()
    size = await _manifest_size(main, branch, version)
    tag = Tag(_stored(branch), version, size, now, now, dict(metadata or {}))
    try:
        await main.put(tag_path(name), encode_tag(tag), if_absent=True)
    except AlreadyExistsError:
        raise AlreadyExistsError(f"{main.uri}: tag {name} already exists") from None
    return tag


async def update_tag(
    main: Store, name: str, branch: str | None, version: int, *, metadata: Mapping[str, str] | None = None
) -> Tag:
    """Move a tag to another version.

    Raises:
        NotFoundError: the tag or the version does not exist.
    """
    old = await get_tag(main, name)
    size = await _manifest_size(main, branch, version)
    tag = replace(
        old,
        branch=_stored(branch),
        version=version,
        manifest_size=size,
        updated_at_ns=time.time_ns(),
        metadata=old.metadata if metadata is None else dict(metadata),
    )
    await main.put(tag_path(name), encode_tag(tag))
    return tag


async def delete_tag(main: Store, name: str) -> None:
    """Remove a tag.

    Raises:
        NotFoundError: there is none of that name.
    """
    await get_tag(main, name)
    await main.delete(tag_path(name))


def _stored(branch: str | None) -> str | None:
    return None if branch == MAIN else branch


async def _manifest_size(main: Store, branch: str | None, version: int) -> int:
    store = branch_store(main, branch)
    for scheme in NamingScheme:
        with suppress(NotFoundError):
            return (await store.head(manifest_path(version, scheme))).size
    raise NotFoundError(f"{main.uri}: version {branch or MAIN}:{version} does not exist")


# -- branches ------------------------------------------------------------------------------------------


async def get_branch(main: Store, name: str) -> Branch:
    """Read the descriptor of a branch.

    Raises:
        NotFoundError: there is none of that name.
        CorruptFileError: its file is damaged.
    """
    check_branch_name(name)
    path = branch_path(name)
    try:
        data = await main.get_all(path, who="branch")
    except NotFoundError:
        raise NotFoundError(f"{main.uri}: branch {name} does not exist") from None
    return decode_branch(bytes(data), f"{main.uri}/{path}")


async def list_branches(main: Store) -> dict[str, Branch]:
    """All branches but main by their name."""
    found = await _read_all(main, BRANCHES, decode_branch)
    return {name.replace("%2F", "/"): branch for name, branch in found.items()}


async def create_branch(
    main: Store, name: str, parent: str | None, version: int, *, metadata: Mapping[str, Any] | None = None
) -> Manifest:
    """Make a branch: a shallow clone of a version in a folder of its own, then the descriptor.

    A branch whose creation was interrupted between the two is completed.

    Args:
        main: store of the main branch.
        name: of the new branch.
        parent: branch to start from, None for main.
        version: version of it.
        metadata: entries of the descriptor.

    Returns:
        The first manifest of the branch; its version is that of the parent.

    Raises:
        AlreadyExistsError: the branch exists.
        NotFoundError: the parent or its version does not.
        InvalidInputError: the name is not allowed.
    """
    check_branch_name(name)
    parent = _stored(parent)
    exists = f"{main.uri}: branch {name} already exists"
    try:
        await get_branch(main, name)
    except NotFoundError:
        pass
    else:
        raise AlreadyExistsError(exists)
    lineage = () if parent is None else (await get_branch(main, parent)).lineage
    source = branch_store(main, parent)
    content = await load_manifest(source, version)
    store = branch_store(main, name)
    clone = Clone(True, parent, version, source.address(), name, content)
    try:
        manifest = await commit(store, clone, read_version=version)
    except AlreadyExistsError:
        manifest = await _leftover(store, clone, exists)
    size = (await store.head(manifest_path(manifest.version))).size
    branch = Branch(
        parent, version, (*lineage, (version, uuid.uuid4().hex)), int(time.time()), size, dict(metadata or {})
    )
    try:
        await main.put(branch_path(name), encode_branch(branch), if_absent=True)
    except AlreadyExistsError:
        raise AlreadyExistsError(exists) from None
    return manifest


async def _leftover(store: Store, clone: Clone, exists: str) -> Manifest:
    """The only version in a folder without descriptor, when it is what was about to be made."""
    versions = await find_versions(store)
    if versions.versions == [clone.ref_version]:
        manifest = await load_manifest(store, clone.ref_version)
        if manifest.branch == clone.branch_name and any(
            b.path == clone.ref_path for b in manifest.base_paths
        ):
            return manifest
    raise AlreadyExistsError(f"{exists} as an unfinished one in {store.uri}; delete the branch first")


async def delete_branch(main: Store, name: str) -> None:
    """Remove a branch with its folder, also the rest of one whose creation or removal was interrupted.

    Raises:
        NotFoundError: there is none of that name.
        InvalidInputError: a tag names a version of it, or another branch was made from it.
    """
    check_branch_name(name)
    branches = await list_branches(main)
    branch = branches.pop(name, None)
    if branch is not None:
        users = sorted(one for one, other in branches.items() if other.descends_from(branch))
        if users:
            raise InvalidInputError(f"{main.uri}: branch {name} is what branch {users[0]} was made from")
        tags = sorted(one for one, tag in (await list_tags(main)).items() if tag.branch == name)
        if tags:
            raise InvalidInputError(f"{main.uri}: tag {tags[0]} names a version of branch {name}")
    folder = f"{TREE}/{name}/"
    nested = tuple(f"{TREE}/{one}/" for one in branches if one.startswith(name + "/"))
    files = [one.path for one in await main.list(folder.rstrip("/"))]
    files = [path for path in files if not path.startswith(nested)] if nested else files
    if branch is None and not files:
        raise NotFoundError(f"{main.uri}: branch {name} does not exist")
    if branch is not None:
        await main.delete(branch_path(name))
    # Manifests first: what is left of the folder then is no table any more.
    await main.delete_many([path for path in files if "/_versions/" in path])
    await main.delete_many([path for path in files if "/_versions/" not in path])


async def _read_all(main: Store, folder: str, decode: Callable[[bytes, str], T]) -> dict[str, T]:
    names = [
        found[1]
        for one in await main.list(folder)
        if (found := re.fullmatch(rf"{folder}/([^/]+)\.json", one.path)) is not None
    ]

    async def read(name: str) -> tuple[str, T | None]:
        path = f"{folder}/{name}.json"
        try:
            return name, decode(bytes(await main.get_all(path, who="reference")), f"{main.uri}/{path}")
        except NotFoundError:
            return name, None  # removed since the listing

    result = {}
    stream = current_runtime().map_ordered(read, names, window=_WINDOW, suspends=main.suspends)
    async with aclosing(stream):
        async for name, value in stream:
            if value is not None:
                result[name] = value
    return result
