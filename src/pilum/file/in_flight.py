"""What is being loaded right now, so that a second task waits for it instead of asking the store again.

Units of one fragment, and queries of one dataset, want the same footer, page metadata and deletion vector at the same
time.  On a store that suspends the first of them loads, the others wait for it; should it fail or be cancelled, the
next one tries.  Nothing here is needed over a store that never suspends: what it answers at once is not waited for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

__all__ = ["InFlight"]

_FAILED: Any = object()


class InFlight:
    """Loads in progress by key, those of each event loop apart: a future belongs to one loop."""

    __slots__ = ("_loading",)

    def __init__(self) -> None:
        self._loading: dict[tuple[int, Hashable], asyncio.Future[Any]] = {}

    async def once(self, key: Hashable, load: Callable[[], Awaitable[Any]]) -> Any:
        """What ``load`` returns; tasks that ask for the same key meanwhile get the same.

        Args:
            key: what is loaded.
            load: loads it, and keeps it where the next caller looks first.
        """
        while True:
            running = self.running(key)
            if running is None:
                with self.loading([key]) as done:
                    value = await load()
                    done(value)
                    return value
            found = await wait_for(running)
            if found is not _FAILED:
                return found

    def running(self, key: Hashable) -> asyncio.Future[Any] | None:
        """The load of ``key`` that is in progress on this loop."""
        return self._loading.get((id(_loop()), key)) if self._loading else None

    @contextmanager
    def loading(self, keys: Sequence[Hashable]) -> Iterator[Callable[[Any], None]]:
        """Loads some keys inside the ``with`` block; those who wait are woken when it ends.

        Yields:
            What to call with the value they get.  If it is not called they try themselves.
        """
        loop = _loop()
        future: asyncio.Future[Any] = loop.create_future()
        value = _FAILED

        def done(result: Any) -> None:
            nonlocal value
            value = result

        for key in keys:
            self._loading[id(loop), key] = future
        try:
            yield done
        finally:
            for key in keys:
                del self._loading[id(loop), key]
            if not future.done():
                future.set_result(value)


async def wait_for(running: asyncio.Future[Any]) -> Any:
    """What another task loads; being cancelled here does not disturb it."""
    import asyncio

    await asyncio.wait([running])
    return running.result()


def _loop() -> Any:
    import asyncio

    return asyncio.get_running_loop()
