"""Versions whose owner is written down in a database, beside the bucket (spec/table.md, section 7.3).

    commit    1  put the manifest under a name of its own   _versions/...607.manifest-UUID
              2  add an item with that name, if the version has none     <- who succeeds owns the version
              3  put the manifest under its final name                   <- readers find it
              4  write the final name into the item
              5  delete the first object

A writer that dies after step 2 leaves a version that exists, but lies under the wrong name.  Whoever sees its item
next, to read or to write, takes the remaining steps for it (`settle`): they are the same whoever takes them, and
may be taken twice.  Only the newest version can be unfinished, because nobody commits on top of one that is.

A table that has no items is as it would be without the database, until the first commit.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pilum.errors import AlreadyExistsError, CorruptFileError, NotFoundError, PilumError
from pilum.io import Store, dynamodb
from pilum.table.naming import VERSIONS, NamingScheme, parse_manifest_name

if TYPE_CHECKING:
    from pilum.io import VersionItem

__all__ = ["forget_versions", "newest_item", "publish", "settle"]

_STAGED = re.compile(r"(.+\.manifest)-[0-9A-Za-z-]+")


async def publish(store: Store, version: int, path: str, data: bytes) -> None:
    """Publish a manifest, if nobody has published that version.

    Args:
        store: of a dataset with items.
        version: number.
        path: final key of the manifest.
        data: its bytes.

    Raises:
        AlreadyExistsError: the version has an owner, and its manifest is under its final name.  Unless it is said
            to be certain, the owner may be this very call, after a lost answer: compare the manifests.
        StoreError: a request failed.  The object of step 1 is left, since an item may name it.
    """
    assert store.external is not None
    staged = dynamodb.VersionItem(version, f"{path}-{uuid.uuid4()}", len(data))
    await store.put(staged.path, data)
    if not await store.external.insert(staged):
        owner = await store.external.find(version)
        if owner is None or owner.path != staged.path:
            if owner is not None:
                await _finish(store, owner)
            await _remove(store, staged.path)
            # A final name may be that of our object, if somebody has finished what we began.
            raise AlreadyExistsError(
                f"{store.uri}: version {version} is owned by another commit",
                certain=owner is not None and _STAGED.fullmatch(owner.path) is not None,
            )
    # From here on the version exists: what fails is done by the next who looks at it.
    with contextlib.suppress(PilumError, OSError):
        await _put_in_place(store, staged, path, data)


async def newest_item(store: Store) -> tuple[int, NamingScheme] | None:
    """The newest version that the items know, finished, and how its manifest is named.

    None where the store has no items or the dataset has none yet: a listing tells.
    """
    found = None if store.external is None else await store.external.newest()
    if found is None:
        return None
    item = await _finish(store, found)
    name = parse_manifest_name(item.path.rpartition("/")[2])
    if name is None or name.scheme is None or name.version != item.version:
        raise CorruptFileError(f"{store.external!r}: version {item.version} lies at {item.path}")
    if name.scheme is NamingScheme.V1:
        # It may have got a new name in the meantime.
        try:
            await store.head(item.path)
        except NotFoundError:
            return item.version, NamingScheme.V2
    return item.version, name.scheme


async def settle(store: Store, version: int | None = None) -> bool:
    """Finish a version, by default the newest one, if it has an owner who did not; whether that was necessary."""
    if store.external is None:
        return False
    found = await (store.external.newest() if version is None else store.external.find(version))
    return found is not None and await _finish(store, found) is not found


async def forget_versions(store: Store, manifests: Iterable[str]) -> None:
    """Remove the items of a dataset whose files are gone, and those of its branches.

    Without that nobody could make a dataset in the same place.

    Args:
        store: of the dataset.
        manifests: keys that its manifests had.
    """
    if store.external is not None:
        branches = {path.partition(f"/{VERSIONS}/")[0] for path in manifests if f"/{VERSIONS}/" in path}
        for items in (store.external, *map(store.external.below, sorted(branches))):
            await items.clear()


async def _finish(store: Store, item: VersionItem) -> VersionItem:
    """Take the steps that an owner has left, and return the item as it is then.

    Raises:
        CorruptFileError: the manifest is not where the item says, or is not what it was.
    """
    assert store.external is not None
    staged = _STAGED.fullmatch(item.path)
    if staged is None:
        return item
    final = staged[1]
    try:
        data = bytes(await store.get_all(item.path, who="manifest"))
    except NotFoundError:
        # Somebody else has finished it meanwhile, or has come as far as deleting the object.
        return await _finished(store, item, final)
    if item.size is not None and len(data) != item.size:
        raise CorruptFileError(
            f"{store.uri}/{item.path} has {len(data)} bytes; the item of version {item.version} says {item.size}"
        )
    return await _put_in_place(store, item, final, data)


async def _finished(store: Store, item: VersionItem, final: str) -> VersionItem:
    assert store.external is not None
    now = await store.external.find(item.version)
    if now is not None and now.path != item.path:
        return now
    try:
        await store.head(final)
    except NotFoundError:
        raise CorruptFileError(
            f"{store.uri}: the manifest of version {item.version} is lost: it is neither at {item.path}, where "
            f"its item says, nor at {final}"
        ) from None
    done = item._replace(path=final)
    await store.external.replace(done)
    return done


async def _put_in_place(store: Store, item: VersionItem, final: str, data: bytes) -> VersionItem:
    assert store.external is not None
    await store.put(final, data)
    done = item._replace(path=final)
    with contextlib.suppress(PilumError, OSError):
        await store.external.replace(done)
        await store.delete(item.path)
    return done


async def _remove(store: Store, path: str) -> None:
    with contextlib.suppress(PilumError, OSError):
        await store.delete(path)
