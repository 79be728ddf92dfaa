"""Fragments that a scan over a network will read soon, opened before their turn comes.

The data of a large fragment can be asked for when its metadata is here, two round trips after it was asked for.  Where
that begins only when a place in the window is free, the connections rest meanwhile: a scan of 24 fragments of 25 MB took
half as long again as a client that knows all places.  Here the fragments behind the window are opened while those in it
send their data.

```
groups    ▐ in flight: data ▌▐ behind: metadata ▌ · · · ·
           0  1  2  3  4  5   6  7  8  9
```

What was learnt goes into the session, where the read finds it; an error is left to the read, which says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pilum.errors import PilumError
from pilum.io.runtime import cancel_and_wait
from pilum.query.fragment_reader import fetched_whole
from pilum.query.scan_plan import Scan
from pilum.query.scan_read import open_group
from pilum.query.units import UnitGroup

__all__ = ["OpenedAhead"]

_AHEAD = 16  # groups behind the window


class OpenedAhead:
    """Opens large fragments of a scan ahead of their turn; an async context manager that leaves nothing running.

    Args:
        scan: the plan, over a store that suspends.
        groups: what is read, in order.
        window: how many of them are in flight.
    """

    def __init__(self, scan: Scan, groups: Sequence[UnitGroup], window: int) -> None:
        self._scan = scan
        self._schema = scan.stages[0].schema if scan.stages else scan.late
        # Those of the first window open what they need themselves.
        self._seen = {unit.fragment.id for group in groups[:window] for unit in group.units}
        self._behind: Iterator[UnitGroup] = iter(groups[window:])
        self._tasks: set[Any] = set()

    async def __aenter__(self) -> OpenedAhead:
        for _ in range(_AHEAD):
            self.advance()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await cancel_and_wait(self._tasks)

    def advance(self) -> None:
        """Another group has begun: one more may be opened."""
        group = next(self._behind, None)
        if group is None or len(group.units) > 1:
            return
        fragment = group.units[0].fragment
        if fragment.id in self._seen:
            return
        self._seen.add(fragment.id)
        if not fetched_whole(self._scan.snapshot, fragment, self._schema):
            import asyncio

            task = asyncio.get_running_loop().create_task(self._open(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, group: UnitGroup) -> None:
        with suppress(PilumError):
            await open_group(self._scan.snapshot, group, self._schema, {})
