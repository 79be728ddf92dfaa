"""What a query asks for, checked once and frozen: `ScanRequest` and `Nearest`.

The names and defaults are those Lance users know (spec/api.md, sections 4 and 5).  Nothing here looks at
a table; names are resolved against a schema in `projection` and the filter language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query.ordering import ColumnOrdering, parse_orderings

if TYPE_CHECKING:
    from pilum.query.metrics import ScanStatistics

__all__ = ["METRICS", "Nearest", "ScanRequest"]

METRICS: Mapping[str, str] = {
    "l2": "l2",
    "euclidean": "l2",
    "cosine": "cosine",
    "dot": "dot",
    "hamming": "hamming",
}

# Keys of `nearest` that steer an index; a brute-force search accepts and ignores them.
_INDEX_KEYS = frozenset(
    {
        "nprobes",
        "minimum_nprobes",
        "maximum_nprobes",
        "refine_factor",
        "use_index",
        "ef",
        "query_parallelism",
        "approx_mode",
        "search_effort",
    }
)


@dataclass(frozen=True, slots=True)
class Nearest:
    """A nearest-neighbour search.

    Attributes:
        column: name of a column of vectors, or of lists of vectors.
        query: one vector (``dimension`` numbers) or several (``queries × dimension``).
        k: rows wanted, at least 1.
        metric: ``l2`` (squared Euclidean distance), ``cosine`` (1 - cosine), ``dot`` (1 - dot product) or
            ``hamming``; None: hamming for uint8 vectors, else l2.
        lower, upper: keep rows with ``lower <= distance < upper``.
    """

    column: str
    query: npt.NDArray[Any]
    k: int = 10
    metric: str | None = None
    lower: float | None = None
    upper: float | None = None

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Nearest:
        """Check the ``nearest=`` dictionary of a scan."""
        unknown = set(spec) - _INDEX_KEYS - {"column", "q", "k", "metric", "distance_range"}
        if unknown:
            raise InvalidInputError(f"nearest: unknown option {sorted(unknown)[0]!r}")
        if "column" not in spec or "q" not in spec:
            raise InvalidInputError("nearest needs 'column' and 'q'")
        query = _vectors(spec["q"])
        k = spec.get("k", 10)
        k = 10 if k is None else int(k)
        if k <= 0:
            raise InvalidInputError(f"nearest: k must be positive, got {k}")
        for name, least in _LEAST.items():
            value = spec.get(name)
            if value is not None and value < least:
                raise InvalidInputError(f"nearest: {name} must be at least {least}, got {value}")
        metric = spec.get("metric")
        if metric is not None:
            known = METRICS.get(str(metric).lower())
            if known is None:
                raise InvalidInputError(f"nearest: unknown metric {metric!r}; known: {', '.join(METRICS)}")
            metric = known
        low, high = spec.get("distance_range") or (None, None)
        return cls(str(spec["column"]), query, k, metric, low, high)


_LEAST = {"nprobes": 1, "minimum_nprobes": 1, "maximum_nprobes": 1, "refine_factor": 1, "ef": 1}


def _vectors(value: Any) -> npt.NDArray[Any]:
    if isinstance(value, (pa.Array, pa.ChunkedArray, pa.Scalar)):
        if isinstance(value, pa.ChunkedArray):
            value = value.combine_chunks()
        if isinstance(value, pa.Scalar) or pa.types.is_nested(value.type):
            value = value.as_py() if isinstance(value, pa.Scalar) else value.to_pylist()
        else:
            value = arrays.to_numpy(value)
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    try:
        query = np.asarray(value)
    except ValueError:
        raise InvalidInputError("nearest: the vectors of q differ in length") from None
    if query.ndim not in (1, 2) or query.size == 0 or query.dtype.kind not in "fiu":
        raise InvalidInputError("nearest: q must be a vector of numbers, or several of one length")
    return query


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """A scan with every option resolved to its type; unset options are None."""

    columns: Sequence[str] | Mapping[str, str] | None = None
    filter: Any = None
    limit: int | None = None
    offset: int | None = None
    nearest: Nearest | None = None
    prefilter: bool = False
    with_row_id: bool = False
    with_row_address: bool = False
    batch_size: int | None = None
    batch_readahead: int | None = None
    fragment_readahead: int | None = None
    fragment_ids: tuple[int, ...] | None = None
    strict_batch_size: bool = False
    io_buffer_size: int | None = None
    batch_size_bytes: int | None = None
    order_by: tuple[ColumnOrdering, ...] = ()
    include_deleted_rows: bool = False
    late_materialization: bool | tuple[str, ...] | None = None
    fast_search: bool = False
    disable_scoring_autoprojection: bool = False
    use_stats: bool | None = None
    scan_stats_callback: Callable[[ScanStatistics], Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("limit", "offset"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
            if value < 0:
                raise InvalidInputError(f"{name} must not be negative, got {value}")
        for name in ("batch_size", "batch_readahead", "batch_size_bytes", "io_buffer_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {value}")
        if self.include_deleted_rows and not self.with_row_id:
            raise InvalidInputError("include_deleted_rows needs with_row_id: a deleted row has a null _rowid")
        late: Any = self.late_materialization
        if late is not None and not isinstance(late, bool):
            if isinstance(late, str) or not isinstance(late, Sequence):
                raise InvalidInputError("late_materialization is a bool or a list of column names")
            object.__setattr__(self, "late_materialization", tuple(late))
        object.__setattr__(self, "order_by", parse_orderings(self.order_by))
        if isinstance(self.columns, str):
            raise TypeError(
                "columns must be a list of names or a mapping of name to expression, not a string"
            )

    def updated(self, **changes: Any) -> ScanRequest:
        """A copy with some options changed."""
        return replace(self, **changes)
