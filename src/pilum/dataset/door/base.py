"""What the parts of the synchronous dataset share: the asynchronous twin, and how its coroutines are run."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine
from typing import Any, Self, TypeVar

import pyarrow as pa

from pilum.dataset import core
from pilum.dataset.arrow_protocol import Posing
from pilum.io import iterate, run

__all__ = ["Door"]

T = TypeVar("T")


class Door(Posing):
    """A synchronous face of an `AsyncLanceDataset`.

    Attributes:
        aio: the asynchronous twin; both show the same version.
    """

    aio: core.AsyncLanceDataset

    @classmethod
    def of(cls, aio: core.AsyncLanceDataset) -> Self:
        """The synchronous face of an asynchronous dataset."""
        made = cls.__new__(cls)
        made.aio = aio
        return made

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self.aio.snapshot.suspends)

    def _reader(self, schema: pa.Schema, batches: AsyncIterable[pa.RecordBatch]) -> pa.RecordBatchReader:
        iterator = iterate(batches, suspends=self.aio.snapshot.suspends)
        return pa.RecordBatchReader.from_batches(schema, iterator)
