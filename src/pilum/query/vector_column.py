"""Distances of one query to the values of a vector column: element types, null vectors, lists of vectors.

| column | query | distance |
|---|---|---|
| `fixed_size_list<T>[d]` | d numbers | of the two vectors; `queries × d` numbers are a batch of queries |
| `list<fixed_size_list<T>[d]>` | n × d numbers | sum over the query's vectors of the least distance to one of the row's |

T is f16, bf16, f32, f64, i8 (l2, cosine, dot) or u8 (hamming); spec/index-vector.md, section 1.  Values come as
decoded pages, without a detour over Arrow arrays, or as Arrow arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pilum import arrays
from pilum.encoding import Decoded
from pilum.encoding.blocks import FixedBlock, FslBlock, NullBlock
from pilum.encoding.kernels.distance import BFLOAT16, Distance
from pilum.errors import CorruptFileError, InvalidInputError
from pilum.query.alike import AlikeValues
from pilum.schema import Field

__all__ = ["VectorColumn"]

types = pa.types
F32 = npt.NDArray[np.float32]

_ELEMENTS = {
    pa.float16(): np.dtype(np.float16),
    pa.float32(): np.dtype(np.float32),
    pa.float64(): np.dtype(np.float64),
    pa.int8(): np.dtype(np.int8),
    pa.uint8(): np.dtype(np.uint8),
}


class VectorColumn:
    """One query against a vector column.

    Attributes:
        multi: whether a value is a list of vectors.
        dimension: numbers in a vector.
    """

    __slots__ = ("_distances", "_dtype", "dimension", "multi")

    def __init__(self, distances: list[Distance], dimension: int, multi: bool) -> None:
        self._distances = distances
        self._dtype = distances[0].dtype
        self.dimension = dimension
        self.multi = multi

    @classmethod
    def prepare(
        cls, field: Field, query: npt.NDArray[Any], metric: str | None
    ) -> tuple[str, tuple[VectorColumn, ...], bool]:
        """The metric, the prepared queries, and whether they are a batch.

        Raises:
            InvalidInputError: the dimension or the metric does not fit.
            TypeError: the column does not hold vectors.
        """
        kind = field.arrow_type
        multi = types.is_list(kind) or types.is_large_list(kind)
        vector = kind.value_type if multi else kind
        element = _element(field, vector) if types.is_fixed_size_list(vector) else None
        if element is None:
            raise TypeError(
                f"nearest: column {field.name!r} is {kind}, not a fixed-size list of floats, int8 or uint8 "
                "(or a list of those)"
            )
        metric = metric or ("hamming" if element == np.uint8 else "l2")
        dimension = vector.list_size
        if query.shape[-1] != dimension:
            raise InvalidInputError(
                f"nearest: the query has {query.shape[-1]} dimensions, column {field.name!r} has {dimension}"
            )
        distances = [Distance(one, metric, element) for one in np.atleast_2d(query)]
        if multi:
            return metric, (cls(distances, dimension, True),), False
        return metric, tuple(cls([one], dimension, False) for one in distances), query.ndim == 2

    def fill(self, values: AlikeValues | list[Decoded] | pa.Array, out: F32) -> None:
        """Write the distance of each row to ``out``; NaN where the value is null.

        Args:
            values: values of fragments that are alike, decoded pages of the rows, or an Arrow array.
            out: one number a row, contiguous.
        """
        if isinstance(values, AlikeValues):
            self._fill_alike(values, out)
        elif self.multi:
            self._fill_lists(values, out)
        elif isinstance(values, list):
            self._fill_pages(values, out)
        else:
            self._distances[0](_matrix(values, self.dimension, self._dtype), out)
            if values.null_count:
                out[~arrays.valid(values)] = np.nan

    def _fill_alike(self, values: AlikeValues, out: F32) -> None:
        width, rows, stack = self._dtype.itemsize, values.rows, values.stack
        if values.bits != 8 * width or values.size != rows * self.dimension * width:
            raise CorruptFileError("a page of vectors does not have the type of its column")
        if rows * stack.pieces != len(out):
            raise CorruptFileError(f"{rows * stack.pieces} rows decoded, {len(out)} expected")
        last = (stack.pieces - 1) * stack.stride + values.start + values.size
        memory = stack.memory[values.start : last].view(self._dtype)
        self._distances[0].of_stack(memory, stack.stride // width, rows, out)

    def _fill_pages(self, pages: list[Decoded], out: F32) -> None:
        distance, at = self._distances[0], 0
        for page in pages:
            rows = page.num_rows
            matrix = _vectors_of(page, self.dimension, self._dtype)
            if rows > len(out) - at:
                raise CorruptFileError("a page holds more rows than were asked for")
            distance(matrix, out[at : at + rows])
            if page.definition is not None:
                out[at : at + rows][page.definition != 0] = np.nan
            elif isinstance(page.block, NullBlock):
                out[at : at + rows] = np.nan
            at += rows
        if at != len(out):
            raise CorruptFileError(f"{at} rows decoded, {len(out)} expected")

    def _fill_lists(self, lists: pa.Array, out: F32) -> None:
        offsets = arrays.to_numpy(lists.offsets).astype(np.int64)
        first, last = int(offsets[0]), int(offsets[-1])
        vectors = lists.values.slice(first, last - first)
        # NaN: no vector, never a result.
        out[:] = np.nan
        filled = np.flatnonzero(np.diff(offsets) > 0)
        if lists.null_count:
            valid = arrays.valid(lists)
            filled = filled[valid[filled]]
        if not len(filled):
            return
        begins, ends = offsets[filled] - first, offsets[filled + 1] - first
        # A null list may own values: they lie between the end of one list and the begin of the next.
        edges = np.empty(2 * len(filled), np.int64)
        edges[0::2], edges[1::2] = begins, ends
        found = np.empty(len(vectors) + 1, np.float32)
        found[-1] = np.nan
        total = np.zeros(len(filled), np.float32)
        missing = ~arrays.valid(vectors) if vectors.null_count else None
        matrix = _matrix(vectors, self.dimension, self._dtype)
        for distance in self._distances:
            distance(matrix, found[:-1])
            if missing is not None:
                found[:-1][missing] = np.nan
            total += np.fmin.reduceat(found, edges)[0::2]
        out[filled] = total


def _element(field: Field, vector: pa.DataType) -> Any:
    child = vector.value_type
    if isinstance(child, pa.BaseExtensionType):
        return BFLOAT16 if child.extension_name == "lance.bfloat16" else None
    found = _ELEMENTS.get(child)
    if found is None and types.is_fixed_size_binary(child) and child.byte_width == 2:
        return BFLOAT16 if "bfloat16" in _logical_types(field) else None
    return found


def _logical_types(field: Field) -> str:
    return " ".join(one.logical_type for one in field.walk())


def _vectors_of(page: Decoded, dimension: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The vectors of a decoded page as a (rows, dimension) view; null elements count as their stored value."""
    block = page.block
    if isinstance(block, NullBlock):
        return np.zeros((block.count, dimension), dtype)
    child = block.child if isinstance(block, FslBlock) else None
    if isinstance(child, NullBlock):
        return np.zeros((page.num_rows, dimension), dtype)
    if (
        not isinstance(child, FixedBlock)
        or child.bits != 8 * dtype.itemsize
        or child.count != page.num_rows * dimension
    ):
        raise CorruptFileError("a page of vectors does not have the type of its column")
    matrix: npt.NDArray[Any] = child.data[: child.count * dtype.itemsize].view(dtype)
    return matrix.reshape(page.num_rows, dimension)


def _matrix(column: pa.Array, dimension: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The vectors of an Arrow column as a (rows, dimension) view."""
    values = column.values
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if len(column) == 0 or values.buffers()[1] is None:
        return np.zeros((len(column), dimension), dtype)
    start = (values.offset + column.offset * dimension) * dtype.itemsize
    flat = np.frombuffer(values.buffers()[1], dtype=np.uint8)
    size = len(column) * dimension * dtype.itemsize
    matrix: npt.NDArray[Any] = flat[start : start + size].view(dtype).reshape(len(column), dimension)
    return matrix
