"""Hypothesis strategies for Arrow data: types that a format version can hold, arrays of them, batches.

Values come from a seeded NumPy generator rather than element by element, so that examples may have thousands of rows;
hypothesis chooses types, sizes, null patterns and the seed.
"""

from __future__ import annotations

import string
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa

__all__ = ["LEAF_TYPES", "arrays", "batches", "leaf_types", "random_array", "types", "whole"]

LEAF_TYPES: list[Any] = [
    pa.bool_(),
    *(getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)),
    pa.float16(), pa.float32(), pa.float64(),
    pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"),
    pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.timestamp("ms", "Europe/Berlin"),
    pa.duration("s"), pa.duration("us"),
    pa.decimal128(10, 2), pa.decimal128(38, 5), pa.decimal256(60, 3),
    pa.string(), pa.large_string(), pa.binary(), pa.large_binary(),
    pa.binary(1), pa.binary(3), pa.binary(16), pa.binary(300),
]  # fmt: skip


@st.composite
def leaf_types(draw: st.DrawFn) -> Any:
    """A primitive, string or binary type, or a fixed-size list (of fixed-size lists) of fixed-width values."""
    kind = draw(st.sampled_from(LEAF_TYPES))
    if draw(st.integers(0, 5)) == 0:
        item = draw(
            st.sampled_from([pa.float32(), pa.float16(), pa.float64(), pa.int8(), pa.int64(), pa.bool_()])
        )
        kind = pa.list_(item, draw(st.sampled_from([1, 3, 8, 100])))
        if draw(st.integers(0, 4)) == 0:
            kind = pa.list_(kind, 2)
    return kind


def types(depth: int, *, lists: bool = False) -> Any:
    """Leaf types and structs (with ``lists`` also lists, large lists and maps) of at most ``depth`` levels."""
    if depth == 0:
        return leaf_types()
    inner = types(depth - 1, lists=lists)
    fields = st.lists(st.tuples(inner, st.booleans()), min_size=1, max_size=3)
    structs = fields.map(
        lambda members: pa.struct(
            [pa.field(string.ascii_lowercase[i], kind) for i, (kind, _) in enumerate(members)]
        )
    )
    choices = [leaf_types(), structs]
    if lists:
        choices += [inner.map(pa.list_), inner.map(pa.large_list)]
        choices.append(inner.map(lambda kind: pa.map_(pa.string(), kind)))
    return st.one_of(choices)


def random_array(kind: Any, rows: int, rng: np.random.Generator, nulls: float) -> Any:
    """An array of ``rows`` values of ``kind`` with about that share of nulls at each level."""
    mask = rng.random(rows) < nulls if nulls else None
    types_ = pa.types
    if types_.is_struct(kind):
        children = [random_array(field.type, rows, rng, nulls) for field in kind]
        return pa.StructArray.from_arrays(
            children, fields=list(kind), mask=None if mask is None else pa.array(mask)
        )
    if types_.is_map(kind):
        lengths = rng.integers(0, 4, rows)
        keys = pa.array([f"k{i}" for i in range(int(lengths.sum()))], kind.key_type)
        items = random_array(kind.item_type, int(lengths.sum()), rng, nulls)
        return pa.MapArray.from_arrays(_offsets(lengths, mask, pa.int32()), keys, items, type=kind)
    if types_.is_fixed_size_list(kind):
        items = random_array(kind.value_type, rows * kind.list_size, rng, nulls)
        return pa.FixedSizeListArray.from_arrays(
            items, type=kind, mask=None if mask is None else pa.array(mask)
        )
    if types_.is_list(kind) or types_.is_large_list(kind):
        lengths = rng.integers(0, 5, rows)
        items = random_array(kind.value_type, int(lengths.sum()), rng, nulls)
        large = types_.is_large_list(kind)
        maker = pa.LargeListArray if large else pa.ListArray
        return maker.from_arrays(
            _offsets(lengths, mask, pa.int64() if large else pa.int32()), items, type=kind
        )
    return _leaf(kind, rows, rng, mask)


def _offsets(lengths: Any, mask: Any, kind: Any) -> Any:
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return pa.array(ends, kind, mask=None if mask is None else np.append(mask, False))


def _leaf(kind: Any, rows: int, rng: np.random.Generator, mask: Any) -> Any:
    types_ = pa.types
    if types_.is_boolean(kind):
        return pa.array(rng.random(rows) < 0.4, mask=mask)
    if types_.is_fixed_size_binary(kind) and not types_.is_decimal(kind):
        values = [rng.bytes(kind.byte_width) for _ in range(rows)]
        return pa.array([None if mask is not None and mask[i] else v for i, v in enumerate(values)], kind)
    if types_.is_binary(kind) or types_.is_large_binary(kind):
        sizes = rng.integers(0, rng.choice([2, 20, 400]), rows)
        return pa.array(
            [None if mask is not None and mask[i] else rng.bytes(int(n)) for i, n in enumerate(sizes)], kind
        )
    if types_.is_string(kind) or types_.is_large_string(kind):
        letters = list("abcxyz äöü€𝄞")
        sizes = rng.integers(0, rng.choice([2, 20, 300]), rows)
        words = ["".join(rng.choice(letters, int(n))) for n in sizes]
        return pa.array(
            [None if mask is not None and mask[i] else word for i, word in enumerate(words)], kind
        )
    if types_.is_floating(kind):
        values = (rng.standard_normal(rows) * 10.0 ** rng.integers(-3, 4)).astype(kind.to_pandas_dtype())
        if rows and rng.random() < 0.3:
            values[rng.integers(rows)] = rng.choice([np.nan, np.inf, -0.0])
        return pa.array(values, kind, mask=mask)
    width = kind.bit_width // 8
    # Small numbers, a narrow band, or any bits: the three faces of integers for an encoder.
    style = rng.integers(4)
    if width > 8:
        raw = np.zeros((rows, width // 8), np.int64)
        raw[:, 0] = rng.integers(0, 10**9, rows)
        array = pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(raw.tobytes())])
    else:
        high = (20, 100, 127, 3)[style]
        values = rng.integers(0, high, rows).astype(f"<i{width}")
        if types_.is_integer(kind) and style == 3:
            values = rng.integers(
                -(2 ** (8 * width - 1)), 2 ** (8 * width - 1), rows, dtype=f"<i{width}", endpoint=False
            )
        if types_.is_date64(kind):
            values = values * 86_400_000
        if types_.is_date32(kind):
            values = values.astype("<i4")
        if style == 1 and rows:
            values = np.sort(values)
        array = pa.Array.from_buffers(
            kind, rows, [None, pa.py_buffer(np.ascontiguousarray(values).tobytes())]
        )
    if mask is None:
        return array
    bits = np.packbits(~mask, bitorder="little")
    return pa.Array.from_buffers(kind, rows, [pa.py_buffer(bits.tobytes()), array.buffers()[1]])


def whole(table: Any) -> Any:
    """The same rows in arrays of their own.

    Arrow 26 takes and filters slices of nested fixed-size lists wrongly, so what is compared against must not be one.
    """
    columns = []
    for column in table.columns:
        parts = column.chunks or [pa.array([], column.type)]
        columns.append(
            pa.concat_arrays([*parts, parts[0].slice(0, 0)])
        )  # one array alone would not be copied
    return pa.Table.from_arrays(columns, schema=table.schema)


@st.composite
def arrays(draw: st.DrawFn, kind: Any, rows: int) -> Any:
    """An array of a type, often a slice of a longer one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nulls = draw(st.sampled_from([0.0, 0.0, 0.1, 0.6, 1.0]))
    before, after = draw(st.sampled_from([(0, 0), (0, 0), (3, 0), (9, 5)]))
    return random_array(kind, before + rows + after, rng, nulls).slice(before, rows)


@st.composite
def batches(
    draw: st.DrawFn, *, depth: int = 2, lists: bool = False, max_columns: int = 4, max_rows: int = 3000, max_batches: int = 3
) -> list[Any]:  # fmt: skip
    """One to some batches of one random schema."""
    kinds = draw(st.lists(types(depth, lists=lists), min_size=1, max_size=max_columns))
    names = [f"c{i}" for i in range(len(kinds))]
    found = []
    for _ in range(draw(st.integers(1, max_batches))):
        rows = draw(st.sampled_from([0, 1, 2, 7, 100, 1024, 1025, max_rows]))
        rows = min(rows, max_rows)
        columns = [draw(arrays(kind, rows)) for kind in kinds]
        found.append(pa.RecordBatch.from_arrays(columns, names=names))
    return found


PACKED = {"lance-encoding:packed": "true"}
BLOB = {"lance-encoding:blob": "true"}
_PACKABLE = [kind for kind in LEAF_TYPES if not pa.types.is_boolean(kind) and kind != pa.binary(300)]


@st.composite
def special_columns(draw: st.DrawFn, rows: int) -> tuple[Any, Any]:
    """A field and an array of what only field metadata or the Arrow type asks for: packed structs, dictionaries, blobs."""
    what = draw(st.sampled_from(["packed", "packed list", "dictionary", "dictionary list", "blob"]))
    seed, nulls = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.2, 1.0]))
    rng = np.random.default_rng(seed)
    mask = pa.array(rng.random(rows) < nulls)
    if what == "blob":
        array = random_array(pa.large_binary(), rows, rng, nulls)
        return pa.field("special", array.type, metadata=BLOB), array
    count = rows if "list" not in what else int(rng.integers(0, 2 * rows + 1))
    if what.startswith("packed"):
        kinds = draw(st.lists(st.sampled_from([*_PACKABLE, pa.list_(pa.int16(), 3)]), min_size=1, max_size=4))
        members = [random_array(kind, count, rng, 0.0) for kind in kinds]
        names = [f"m{i}" for i in range(len(kinds))]
        inner = pa.StructArray.from_arrays(members, names, mask=None if "list" in what else mask)
        metadata = PACKED
    else:
        key = draw(st.sampled_from([pa.int8(), pa.int32(), pa.uint16(), pa.int64()]))
        values = pa.array([None, "a", "bb", "äö" * 30, ""][: draw(st.integers(1, 5))], pa.string())
        indices = pa.array(rng.integers(0, len(values), count), key, mask=rng.random(count) < nulls)
        inner, metadata = pa.DictionaryArray.from_arrays(indices, values), None
    if "list" not in what:
        return pa.field("special", inner.type, metadata=metadata), inner
    ends = np.sort(rng.integers(0, count + 1, rows + 1)) if rows else np.zeros(1, np.int64)
    ends[0], ends[-1] = 0, count if rows else 0
    item = pa.field("item", inner.type, metadata=metadata)
    offsets = _offsets(np.diff(ends), mask.to_numpy(False) if nulls else None, pa.int32())
    array = pa.ListArray.from_arrays(offsets, inner, type=pa.list_(item))
    return pa.field("special", array.type, metadata=metadata and {}), array
