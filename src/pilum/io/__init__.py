"""Everything that waits: stores of bytes, and the runtimes that overlap waiting and computing.

A `Store` maps keys to bytes and is read by ranges, which are planned (`plan_requests`) and, where requests
take time, scheduled (`RequestScheduler`).  Code above is written as coroutines; `run` and `iterate` drive
them from synchronous callers, and `current_runtime` gives them `map_ordered` and `offload`, so that the same
code runs on threads over local files and as tasks over the network.  `trace` logs the requests of a query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilum import imports

if TYPE_CHECKING:
    from pilum.io.buffers import Bytes, Stack
    from pilum.io.driver import iterate, run
    from pilum.io.dynamodb import VersionItem
    from pilum.io.local import LocalStore
    from pilum.io.locate import address_suspends, store_for
    from pilum.io.memory import MemoryStore
    from pilum.io.ranges import Range, plan_requests
    from pilum.io.runtime import InlineRuntime, LoopRuntime, Runtime, current_runtime
    from pilum.io.scheduler import RequestScheduler
    from pilum.io.spans import QuerySpan
    from pilum.io.stats import IoCounts, IoStats
    from pilum.io.store import ObjectInfo, ObjectWriter, Store
    from pilum.io.tracing import Request, TraceLog, trace
else:
    __getattr__, __dir__ = imports.late(
        __name__,
        {
            "base_options": (),
            "buffers": ("Bytes", "Stack"),
            "driver": ("iterate", "run"),
            "dynamodb": ("VersionItem",),
            "local": ("LocalStore",),
            "locate": ("address_suspends", "store_for"),
            "memory": ("MemoryStore",),
            "ranges": ("Range", "plan_requests"),
            "runtime": ("InlineRuntime", "LoopRuntime", "Runtime", "current_runtime"),
            "scheduler": ("RequestScheduler",),
            "spans": ("QuerySpan",),
            "stats": ("IoCounts", "IoStats"),
            "store": ("ObjectInfo", "ObjectWriter", "Store"),
            "tracing": ("Request", "TraceLog", "trace"),
        },
    )

__all__ = [
    "Bytes",
    "InlineRuntime",
    "IoCounts",
    "IoStats",
    "LocalStore",
    "LoopRuntime",
    "MemoryStore",
    "ObjectInfo",
    "ObjectWriter",
    "QuerySpan",
    "Range",
    "Request",
    "RequestScheduler",
    "Runtime",
    "Stack",
    "Store",
    "TraceLog",
    "VersionItem",
    "address_suspends",
    "current_runtime",
    "iterate",
    "plan_requests",
    "run",
    "store_for",
    "trace",
]
