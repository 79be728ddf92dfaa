"""A store that fails or stops at a chosen call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pilum.errors import StoreError
from pilum.io import Bytes, ObjectInfo, ObjectWriter, Range, Store
from pilum.io.store import Infos, Pieces

T = TypeVar("T")

MODES = ["fails before", "fails after", "stops before", "stops after"]


class FaultyStore(Store):
    """Passes calls on to another store, but for one.

    Args:
        inner: the store.
        fail_at: number of the call, from 0; -1 never fails.
        mode: whether that call does its work first ("after": a lost answer), and whether only it fails or
            every one from then on ("stops": the process is gone).
    """

    def __init__(self, inner: Store, fail_at: int, mode: str) -> None:
        super().__init__(inner.uri)
        self.inner = inner
        self.suspends = inner.suspends
        self.fail_at = fail_at
        self.mode = mode
        self.calls = 0

    @property
    def failed(self) -> bool:
        """Whether the chosen call was reached."""
        return self.calls > self.fail_at >= 0

    async def _pass(self, call: Callable[[], Awaitable[T]]) -> T:
        number, self.calls = self.calls, self.calls + 1
        hit = number == self.fail_at
        gone = self.mode.startswith("stops") and number > self.fail_at >= 0
        if gone or (hit and self.mode.endswith("before")):
            raise StoreError(f"call {number} failed")
        result = await call()
        if hit:
            raise StoreError(f"the answer to call {number} was lost")
        return result

    async def get(self, path: str, start: int, end: int, *, who: str = "") -> Bytes:
        return await self._pass(lambda: self.inner.get(path, start, end, who=who))

    async def get_ranges(self, path: str, ranges: Sequence[Range], *, who: str = "") -> Pieces:
        return await self._pass(lambda: self.inner.get_ranges(path, ranges, who=who))

    async def get_all(self, path: str, *, who: str = "") -> Bytes:
        return await self._pass(lambda: self.inner.get_all(path, who=who))

    async def get_tail(
        self, path: str, nbytes: int, *, size: int | None = None, who: str = ""
    ) -> tuple[Bytes, int]:
        return await self._pass(lambda: self.inner.get_tail(path, nbytes, size=size, who=who))

    async def head(self, path: str) -> ObjectInfo:
        return await self._pass(lambda: self.inner.head(path))

    async def modified(self, path: str) -> float | None:
        return await self._pass(lambda: self.inner.modified(path))

    async def list(self, prefix: str) -> Infos:
        return await self._pass(lambda: self.inner.list(prefix))

    async def put(self, path: str, data: Any, *, if_absent: bool = False) -> None:
        await self._pass(lambda: self.inner.put(path, data, if_absent=if_absent))

    async def delete(self, path: str) -> None:
        await self._pass(lambda: self.inner.delete(path))

    async def create(self, path: str) -> ObjectWriter:
        return await self._pass(lambda: self.inner.create(path))
