"""Distances of one query to many vectors, and the best k of them (`spec/index-vector.md`, section 1).

    l2       sum (q - v)^2          squared, no root
    cosine   1 - q.v / (|q| |v|)    NaN for a zero vector: never a result
    dot      1 - q.v
    hamming  number of differing bits, of u8 vectors only

Vectors are rows of a contiguous matrix of f16, bf16, i8, f32 or f64; results are f32.  Narrow types are widened
to f32 and summed there, f32 is summed in f32, f64 in f64.  Rows are independent, so the kernels
run on any slice in any thread; they release the GIL and use no thread pool (nor does NumPy:
`einsum` here does not reach the BLAS, whose threads do not survive ``fork()`` in a busy
process).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pilum.encoding.kernels import Kernel
from pilum.errors import InvalidInputError

__all__ = ["BFLOAT16", "METRICS", "Distance", "distances", "top_k"]

Floats: TypeAlias = npt.NDArray[Any]
Distances: TypeAlias = npt.NDArray[np.float32]

METRICS = ("l2", "cosine", "dot")
BFLOAT16 = "bfloat16"  # NumPy has no such type: its vectors are matrices of uint16
_BLOCK_BYTES = 256 << 10  # rows handled at once by the twin: temporaries stay in the cache


def distances(query: Floats, matrix: Floats, metric: str = "l2", out: Distances | None = None) -> Distances:
    """Distance of ``query`` to each row of ``matrix``.

    Args:
        query: ``dimension`` numbers; converted to the type of the sums (f32, or f64 for f64).
        matrix: ``(rows, dimension)``, f16, f32 or f64.
        metric: ``"l2"``, ``"cosine"`` or ``"dot"``.
        out: ``rows`` float32 numbers to write to; allocated when None.

    Returns:
        ``rows`` float32 distances; NaN where there is none.
    """
    prepared = Distance(query, metric, matrix.dtype)
    rows, dimension = matrix.shape
    if prepared.shape != (dimension,):
        raise InvalidInputError(f"query of shape {prepared.shape} for vectors of dimension {dimension}")
    if out is None:
        out = np.empty(rows, np.float32)
    if not matrix.flags.c_contiguous or not out.flags.c_contiguous:
        out[:] = distances(query, np.ascontiguousarray(matrix), metric)
        return out
    prepared(matrix, out)
    return out


class Distance:
    """One query and one metric, prepared for many matrices of one element type (arguments as `distances`).

    Args:
        query: ``dimension`` numbers.
        metric: as for `distances`, or ``"hamming"``.
        element: NumPy type of the elements, or `BFLOAT16`.

    Attributes:
        dtype: NumPy type of the matrices.

    Raises:
        InvalidInputError: the metric is not defined for the elements.
    """

    __slots__ = ("_kernel", "_metric", "_norm", "_query", "_widen", "dtype")

    def __init__(self, query: Floats, metric: str, element: Any) -> None:
        self._widen: Any = None
        self._kernel: Any = None
        self._norm: Any = None
        self._metric = metric
        if metric == "hamming":
            self.dtype = np.dtype(element) if element != BFLOAT16 else np.dtype(np.uint16)
            if element == BFLOAT16 or self.dtype != np.uint8:
                raise InvalidInputError(f"distance hamming does not support {element} vectors, only uint8")
            self._query: Floats = np.ascontiguousarray(np.clip(np.nan_to_num(query), 0, 255), np.uint8)
            return
        if element == BFLOAT16:
            self.dtype = np.dtype(np.uint16)
            self._widen = _widen_bfloat16
        else:
            self.dtype = np.dtype(element)
            self._widen = _WIDENINGS.get(self.dtype.char)
        kernels = _SINGLE if self._widen is not None else _KERNELS.get(self.dtype.char)
        if kernels is None or metric not in METRICS:
            raise InvalidInputError(f"distance {metric} does not support {element} vectors")
        wide = np.float64 if self.dtype == np.float64 else np.float32
        self._query = np.ascontiguousarray(query, wide)
        self._norm = wide(np.sqrt((self._query * self._query).sum()))
        self._kernel = kernels[METRICS.index(metric)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the query."""
        return self._query.shape

    def __call__(self, matrix: Floats, out: Distances) -> None:
        """Write the distance of each row of a contiguous matrix to ``out`` (contiguous, one number a row)."""
        if self._kernel is None:
            hamming_numpy(self._query, matrix, out)
            return
        if self._widen is not None:
            self._of_narrow(matrix, out)
            return
        self._of_wide(matrix, out)

    def of_stack(self, memory: Floats, stride: int, rows: int, out: Distances) -> None:
        """As calling it, for matrices that lie at equal distances from each other in one piece of memory.

        Args:
            memory: begins with the first matrix; of the type of the elements.
            stride: elements from the begin of one matrix to that of the next.
            rows: rows of each.
            out: one number a row, the matrices one after the other.
        """
        dimension = self._query.size
        if self._kernel is not None and self._widen is None:
            compiled = self._kernel.get(len(out) * dimension * self.dtype.itemsize)
            if compiled is not None:
                compiled(self._query, self._norm, memory, stride, rows, out)
                return
        for part in range(len(out) // rows):
            begin = part * stride
            matrix = memory[begin : begin + rows * dimension].reshape(rows, dimension)
            self(matrix, out[part * rows : (part + 1) * rows])

    def _of_wide(self, matrix: Floats, out: Distances) -> None:
        compiled = self._kernel.get(matrix.nbytes)
        if compiled is None:
            distances_numpy(self._query, matrix, self._metric, out)
        else:
            compiled(self._query, self._norm, matrix.reshape(-1), 0, max(1, len(out)), out)

    def _of_narrow(self, matrix: Floats, out: Distances) -> None:
        rows, dimension = matrix.shape
        compiled = self._kernel.get(2 * matrix.nbytes)
        step = max(1, _BLOCK_BYTES // max(1, 4 * dimension))
        block = np.empty(min(step, rows) * dimension, np.float32)
        for low in range(0, rows, step):  # widened in blocks that stay in the cache
            part = matrix[low : low + step].reshape(-1)
            wide = block[: len(part)]
            self._widen(part, wide)
            target = out[low : low + step]
            if compiled is None:
                distances_numpy(self._query, wide.reshape(-1, dimension), self._metric, target)
            else:
                compiled(self._query, self._norm, wide, 0, len(target), target)


def _widen_half(part: Floats, out: Distances) -> None:
    widen = _WIDEN.get(part.nbytes)
    if widen is None:
        out[:] = part
    else:
        widen(part.view(np.uint16), out)


def _widen_bfloat16(part: npt.NDArray[np.uint16], out: Distances) -> None:
    bits = out.view(np.uint32)
    bits[:] = part
    bits <<= np.uint32(16)


def _widen_int8(part: npt.NDArray[np.int8], out: Distances) -> None:
    out[:] = part


_WIDENINGS = {"e": _widen_half, "b": _widen_int8}


def hamming_numpy(query: npt.NDArray[np.uint8], matrix: npt.NDArray[np.uint8], out: Distances) -> None:
    """Differing bits of each row; NumPy counts bits with the processor's own instruction."""
    rows, dimension = matrix.shape
    if dimension and dimension % 8 == 0 and query.ctypes.data % 8 == 0 and matrix.ctypes.data % 8 == 0:
        query, matrix = query.view(np.uint64), matrix.view(np.uint64)
    step = max(1, _BLOCK_BYTES // max(1, dimension))
    for low in range(0, rows, step):
        part = matrix[low : low + step]
        out[low : low + step] = np.bitwise_count(part ^ query).sum(axis=1, dtype=np.uint32)


def distances_numpy(query: Floats, matrix: Floats, metric: str, out: Distances) -> None:
    rows, dimension = matrix.shape
    step = max(1, _BLOCK_BYTES // max(1, dimension * query.itemsize))
    norm = np.sqrt(np.einsum("i,i->", query, query))
    with np.errstate(all="ignore"):
        for low in range(0, rows, step):
            part = matrix[low : low + step].astype(query.dtype, copy=False)
            target = out[low : low + step]
            if metric == "l2":
                delta = part - query
                target[:] = np.einsum("ij,ij->i", delta, delta)
            elif metric == "dot":
                target[:] = 1 - np.einsum("ij,j->i", part, query)
            else:
                size = np.sqrt(np.einsum("ij,ij->i", part, part))
                target[:] = 1 - np.einsum("ij,j->i", part, query) / (norm * size)


def l2_numba(query: Floats, norm: Any, memory: Floats, stride: int, rows: int, out: Distances) -> None:
    dimension = query.size
    for part in range(out.size // rows):
        for row in range(rows):
            begin = part * stride + row * dimension
            vector = memory[begin : begin + dimension]
            total = norm * 0
            for i in range(dimension):
                delta = vector[i] - query[i]
                total += delta * delta
            out[part * rows + row] = total


def dot_numba(query: Floats, norm: Any, memory: Floats, stride: int, rows: int, out: Distances) -> None:
    dimension = query.size
    for part in range(out.size // rows):
        for row in range(rows):
            begin = part * stride + row * dimension
            vector = memory[begin : begin + dimension]
            total = norm * 0
            for i in range(dimension):
                total += vector[i] * query[i]
            out[part * rows + row] = 1 - total


def cosine_numba(query: Floats, norm: Any, memory: Floats, stride: int, rows: int, out: Distances) -> None:
    dimension = query.size
    for part in range(out.size // rows):
        for row in range(rows):
            begin = part * stride + row * dimension
            vector = memory[begin : begin + dimension]
            total = norm * 0
            size = norm * 0
            for i in range(dimension):
                total += vector[i] * query[i]
                size += vector[i] * vector[i]
            out[part * rows + row] = 1 - total / (norm * np.sqrt(size))


def widen_numba(halves: npt.NDArray[np.uint16], out: Distances) -> None:
    scale = np.float32(2.0**112)  # moves the exponent bias from 15 to 127, subnormals included
    limit = np.float32(65536.0)  # where that puts infinity; NaNs lie above
    for i in range(halves.size):
        half = np.uint32(halves[i])
        value = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32) * scale
        if value >= limit:
            value = np.float32(np.inf) if value == limit else np.float32(np.nan)
        out[i] = -value if half & np.uint32(0x8000) else value


def top_k(
    distances: Distances, k: int, lower: float | None = None, upper: float | None = None
) -> npt.NDArray[np.int64]:
    """Rows of the ``k`` smallest distances, ascending; ties go to the lower row.

    Args:
        distances: float32, NaN = not a candidate.
        k: how many at most.
        lower, upper: keep only ``lower <= distance < upper``.
    """
    if k <= 0:
        return np.empty(0, np.int64)
    # NumPy's way is some fifty times slower than a copy: the kernel is worth loading early
    kernel = _TOP_K.get(50 * distances.nbytes) if k <= 1024 and distances.flags.c_contiguous else None
    if kernel is None:
        return top_k_numpy(distances, k, lower, upper)
    rows = np.empty(k, np.int64)
    best = np.empty(k, np.float32)
    # a bound is compared in f32, as the distances are; without one every number passes
    low = np.float32(-np.inf if lower is None else lower)
    high = np.float32(np.inf if upper is None else upper)
    found = int(kernel(distances, low, high, int(upper is None), best, rows))
    order = np.lexsort((rows[:found], best[:found]))
    return rows[:found][order]


def top_k_numpy(
    distances: Distances, k: int, lower: float | None = None, upper: float | None = None
) -> npt.NDArray[np.int64]:
    keep = ~np.isnan(distances)
    if lower is not None:
        keep &= distances >= np.float32(lower)
    if upper is not None:
        keep &= distances < np.float32(upper)
    rows = np.flatnonzero(keep)
    values = distances[rows]
    if len(rows) > k:
        worst = np.partition(values, k - 1)[k - 1]
        near = np.flatnonzero(values <= worst)
        rows, values = rows[near], values[near]
    return rows[np.argsort(values, kind="stable")[:k]].astype(np.int64, copy=False)


def top_k_numba(
    distances: Distances, low: Any, high: Any, open_end: int, best: Distances, rows: npt.NDArray[np.int64]
) -> int:
    # a binary heap with the worst candidate on top; rows come in ascending order, so a later
    # row never replaces an equal one and the order (distance, row) decides inside the heap
    k = rows.size
    found = 0
    worst = high
    for row in range(distances.size):
        value = distances[row]
        if found == k:
            if not value < worst:
                continue
            if value < low:
                continue
            at = 0
            while True:
                child = 2 * at + 1
                if child >= k:
                    break
                if child + 1 < k and (
                    best[child + 1] > best[child]
                    or (best[child + 1] == best[child] and rows[child + 1] > rows[child])
                ):
                    child += 1
                # the new row has the largest number: on equal distance it is the worse one
                if best[child] > value:
                    best[at] = best[child]
                    rows[at] = rows[child]
                    at = child
                else:
                    break
            best[at] = value
            rows[at] = row
            worst = best[0]
        else:
            if not (value < high or (open_end == 1 and value <= high)) or value < low:
                continue
            at = found
            found += 1
            while at > 0:
                parent = (at - 1) // 2
                if best[parent] <= value:
                    best[at] = best[parent]
                    rows[at] = rows[parent]
                    at = parent
                else:
                    break
            best[at] = value
            rows[at] = row
            if found == k:
                worst = best[0]
    return found


# sums may be reordered (that is what vectorises them); NaN and infinity keep their meaning
_REORDER = {"reassoc", "contract", "nsz", "arcp"}


def _kernels_of(element: str) -> tuple[Kernel, Kernel, Kernel]:
    signature = f"void(r.{element}, ={element}, r.{element}, =i8, =i8, f4)"
    return (
        Kernel(l2_numba, signature, fastmath=_REORDER),
        Kernel(cosine_numba, signature, fastmath=_REORDER),
        Kernel(dot_numba, signature, fastmath=_REORDER),
    )


_SINGLE = _kernels_of("f4")
_KERNELS = {"f": _SINGLE, "d": _kernels_of("f8")}
_WIDEN = Kernel(widen_numba, "void(r.u2, f4)")
_TOP_K = Kernel(top_k_numba, "i8(r.f4, =f4, =f4, =i8, f4, i8)")
