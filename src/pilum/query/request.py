"""What a query asks for, checked once and frozen: `ScanRequest` and `Nearest`.

The names and defaults are those Lance users know (spec/api.md, sections 4 and 5).  Nothing here looks at
a table; names are resolved against a schema in `projection` and the filter language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pilum.errors import InvalidInputError, UnsupportedError

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
    """A brute-force nearest-neighbour search.

    Attributes:
        column: name of a fixed-size-list column of floats.
        query: the query vector, one dimension.
        k: rows wanted, at least 1.
        metric: ``l2`` (squared Euclidean distance), ``cosine`` (1 - cosine) or ``dot`` (1 - dot product).
        lower, upper: keep rows with ``lower <= distance < upper``.
    """

    column: str
    query: npt.NDArray[Any]
    k: int = 10
    metric: str = "l2"
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
        query = _vector(spec["q"])
        k = spec.get("k", 10)
        k = 10 if k is None else int(k)
        if k <= 0:
            raise InvalidInputError(f"nearest: k must be positive, got {k}")
        for name, least in (("nprobes", 1), ("refine_factor", 1)):
            value = spec.get(name)
            if value is not None and value < least:
                raise InvalidInputError(f"nearest: {name} must be at least {least}, got {value}")
        metric = METRICS.get(str(spec.get("metric") or "l2").lower())
        if metric is None:
            raise InvalidInputError(
                f"nearest: unknown metric {spec['metric']!r}; known: {', '.join(METRICS)}"
            )
        if metric == "hamming":
            raise UnsupportedError("nearest: the hamming metric is not supported yet")
        low, high = spec.get("distance_range") or (None, None)
        return cls(str(spec["column"]), query, k, metric, low, high)


def _vector(value: Any) -> npt.NDArray[Any]:
    if hasattr(value, "to_numpy"):
        value = value.to_numpy(zero_copy_only=False) if hasattr(value, "null_count") else value.to_numpy()
    query = np.asarray(value)
    if query.ndim == 2 and query.shape[0] == 1:
        query = query[0]
    if query.ndim == 2:
        raise UnsupportedError("nearest: a batch of query vectors is not supported yet; pass one vector")
    if query.ndim != 1 or query.size == 0 or query.dtype.kind not in "fiu":
        raise InvalidInputError("nearest: q must be a vector of numbers")
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
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("limit", "offset"):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
            if value < 0:
                raise InvalidInputError(f"{name} must not be negative, got {value}")
        for name in ("batch_size", "batch_readahead"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} must be at least 1, got {value}")
        if isinstance(self.columns, str):
            raise TypeError(
                "columns must be a list of names or a mapping of name to expression, not a string"
            )

    def updated(self, **changes: Any) -> ScanRequest:
        """A copy with some options changed."""
        return replace(self, **changes)
