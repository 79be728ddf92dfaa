"""A folder of a store as a store of its own: branches live inside the folder of their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilum.io import Bytes, LocalStore, ObjectInfo, ObjectWriter, Range, Store
from pilum.io.store import Infos, Leftovers, Names, Pieces, Wanted

__all__ = ["FolderStore", "folder_of"]


def folder_of(store: Store, folder: str) -> Store:
    """The store whose root is a folder of another one; ``""`` is the store itself."""
    folder = folder.strip("/")
    if not folder:
        return store
    if isinstance(store, FolderStore):
        return folder_of(store.parent, f"{store.folder}/{folder}")
    if isinstance(store, LocalStore):
        below = LocalStore(f"{store.uri}/{folder}")
        below.base_options = store.base_options
        return below
    return FolderStore(store, folder)


class FolderStore(Store):
    """The objects of a store whose keys begin with a folder; requests are made and counted by that store.

    Args:
        parent: the store.
        folder: without a slash at either end.
    """

    def __init__(self, parent: Store, folder: str) -> None:
        super().__init__(f"{parent.uri}/{folder}")
        self.parent = parent
        self.folder = folder
        self.take_after(parent)
        self.base_options = parent.base_options
        self.external = None if parent.external is None else parent.external.below(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reduced(FolderStore, (self.parent, self.folder))

    def address(self, folder: str = "") -> str:
        return self.parent.address(self._key(folder))

    def _key(self, path: str) -> str:
        return f"{self.folder}/{path}" if path else self.folder

    def _own(self, info: ObjectInfo) -> ObjectInfo:
        return info._replace(path=info.path.removeprefix(self.folder + "/"))

    async def get(self, path: str, start: int, end: int, *, who: str = "") -> Bytes:
        return await self.parent.get(self._key(path), start, end, who=who)

    async def get_ranges(self, path: str, ranges: Sequence[Range], *, who: str = "") -> Pieces:
        return await self.parent.get_ranges(self._key(path), ranges, who=who)

    async def get_many(self, requests: Sequence[Wanted], *, who: str = "") -> Pieces:
        return await self.parent.get_many(
            [(self._key(path), start, end) for path, start, end in requests], who=who
        )

    async def get_all(self, path: str, *, who: str = "") -> Bytes:
        return await self.parent.get_all(self._key(path), who=who)

    async def get_tail(
        self, path: str, nbytes: int, *, size: int | None = None, who: str = ""
    ) -> tuple[Bytes, int]:
        return await self.parent.get_tail(self._key(path), nbytes, size=size, who=who)

    async def head(self, path: str) -> ObjectInfo:
        return self._own(await self.parent.head(self._key(path)))

    async def modified(self, path: str) -> float | None:
        return await self.parent.modified(self._key(path))

    async def list(self, prefix: str) -> Infos:
        return [self._own(info) for info in await self.parent.list(self._key(prefix))]

    async def list_names(self, folder: str) -> Names:
        return await self.parent.list_names(self._key(folder))

    async def first_names(self, folder: str) -> Names:
        return await self.parent.first_names(self._key(folder))

    def elsewhere(self, uri: str) -> Store:
        return self.parent.elsewhere(uri)

    def learn_base_options(self, by_address: Mapping[str, Mapping[str, Any]] | None) -> None:
        self.parent.learn_base_options(by_address)
        self.base_options = self.parent.base_options

    async def leftovers(self, folder: str) -> Leftovers:
        found = await self.parent.leftovers(self._key(folder))
        return [(self._own(info), changed) for info, changed in found]

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        await self.parent.put(self._key(path), data, if_absent=if_absent)

    async def delete(self, path: str) -> None:
        await self.parent.delete(self._key(path))

    async def delete_many(self, paths: Sequence[str]) -> None:
        await self.parent.delete_many([self._key(path) for path in paths])

    async def check_put_if_absent(self) -> None:
        await self.parent.check_put_if_absent()

    async def create(self, path: str) -> ObjectWriter:
        return await self.parent.create(self._key(path))
