"""The synchronous scanner."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pyarrow as pa

from pilum.dataset.arrow_protocol import Posing
from pilum.dataset.scanning import AsyncLanceScanner
from pilum.errors import UnsupportedError
from pilum.io import iterate, run
from pilum.query.request import ScanRequest

if TYPE_CHECKING:
    from pilum.query.request_plan import RequestPlan
    from pilum.query.waterfall import Waterfall

__all__ = ["LanceScanner"]

T = TypeVar("T")


class LanceScanner(Posing):
    """A planned scan; planning did no I/O, each call runs it.

    Example:
        >>> import pilum, pyarrow as pa
        >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-scanner")
        >>> scanner = ds.scanner(columns={"b": "a * 2"}, filter="a > 1")
        >>> scanner.projected_schema.names, scanner.count_rows(), pa.table(scanner.to_reader())["b"].to_pylist()
        (['b'], 2, [4, 6])
    """

    poses_as = "Scanner"

    def __init__(self, aio: AsyncLanceScanner) -> None:
        self.aio = aio

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run(coroutine, suspends=self.aio.snapshot.suspends)

    @property
    def projected_schema(self) -> pa.Schema:
        """Schema of the result."""
        return self.aio.projected_schema

    @property
    def dataset_schema(self) -> pa.Schema:
        """Schema of the dataset."""
        return self.aio.dataset_schema

    @property
    def request(self) -> ScanRequest:
        """The checked options of the scan."""
        return self.aio.request

    def to_table(self) -> pa.Table:
        """All rows as one table."""
        return self._run(self.aio.to_table())

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch."""
        stream = self._run(self.aio.to_batches())
        return iterate(stream, suspends=self.aio.snapshot.suspends)

    def to_reader(self) -> pa.RecordBatchReader:
        """A lazy Arrow reader."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.to_batches())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> Any:
        return self.projected_schema.__arrow_c_schema__()

    def to_pandas(self, *, blob_mode: str = "lazy", **options: Any) -> Any:
        """All rows as a pandas data frame; options as in ``pyarrow.Table.to_pandas``."""
        check_blob_mode(blob_mode)
        return self.to_table().to_pandas(**{"use_threads": False, **options})

    def head(self, num_rows: int) -> pa.Table:
        """The first rows of the result."""
        return self._run(self.aio.head(num_rows))

    def count_rows(self) -> int:
        """Number of rows of the result; only the filter's columns are read.

        Raises:
            InvalidInputError: the scan has a limit or an offset.
        """
        return self._run(self.aio.count_rows())

    def explain_plan(self, verbose: bool = False) -> str:
        """The plan as an indented tree."""
        return self.aio.explain_plan(verbose)

    def analyze_plan(self, count_rows: bool = False) -> str:
        """Run the scan; the plan with measured rows, requests, bytes and time of each step.

        Over a network also retries, dependent rounds of requests, the time to the first byte, and what a disk cache
        answered.
        """
        del count_rows  # rows are always counted
        return self._run(self.aio.analyze_plan())

    def request_plan(self) -> RequestPlan:
        """The requests that running this scan will make, before anything is read: how many, of how many bytes, in
        how many dependent rounds, for each data file and column.

        Example:
            >>> import pilum, pyarrow as pa
            >>> ds = pilum.write_dataset(pa.table({"a": [1, 2, 3]}), "memory://doc-request-plan")
            >>> plan = ds.scanner().request_plan()
            >>> len(plan.files), plan.requests > 0
            (1, True)
        """
        return self._run(self.aio.request_plan())

    def waterfall(self) -> Waterfall:
        """Run the scan under a trace: which fragment waited for what, when.  Print it, or save it as HTML or SVG.

        Light is waiting for the first byte, dark the answer arriving; ``×2`` took two attempts.
        """
        return self._run(self.aio.waterfall())

    # What a pyarrow scanner has beside.

    def scan_batches(self) -> Iterator[Any]:
        """Yields nothing, as in the reference; use `to_batches`."""
        return iter(())

    def take(self, indices: Any) -> NoReturn:
        """Not supported; use `LanceDataset.take`."""
        raise UnsupportedError("take: not supported by scanners, use LanceDataset.take")

    @staticmethod
    def from_dataset(*args: Any, **kwargs: Any) -> NoReturn:
        """Not supported; use `LanceDataset.scanner`."""
        raise UnsupportedError("from_dataset: not supported, use LanceDataset.scanner")

    @staticmethod
    def from_fragment(*args: Any, **kwargs: Any) -> NoReturn:
        """Not supported; use `LanceFragment.scanner`."""
        raise UnsupportedError("from_fragment: not supported, use LanceFragment.scanner")

    @staticmethod
    def from_batches(*args: Any, **kwargs: Any) -> NoReturn:
        """Not supported."""
        raise UnsupportedError("from_batches: not supported")

    def __repr__(self) -> str:
        return repr(self.aio).replace("AsyncLance", "Lance")


def check_blob_mode(blob_mode: str) -> None:
    """Refuse unknown ways to show blobs.

    Raises:
        InvalidInputError: it is none of ``lazy``, ``bytes`` and ``descriptions``.
    """
    if blob_mode not in ("lazy", "bytes", "descriptions"):
        from pilum.errors import InvalidInputError

        raise InvalidInputError(
            f"blob_mode must be one of: 'lazy', 'bytes', 'descriptions', got {blob_mode!r}"
        )
