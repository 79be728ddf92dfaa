"""Shredding and assembly: identity on random nested arrays, the worked examples, damaged levels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilum.encoding import levels, structure
from pilum.encoding.arrow_blocks import to_arrow
from pilum.encoding.blocks import FixedBlock, NullBlock
from pilum.encoding.page import Decoded, LeafRows
from pilum.errors import CorruptFileError, InvalidInputError, PilumError, UnsupportedError
from pilum.schema.field import Field, Schema


def field_of(kind: Any, name: str = "c") -> Field:
    return Schema.from_arrow(pa.schema([pa.field(name, kind)])).fields[0]


def decoded(rows: LeafRows) -> Decoded:
    return Decoded(rows.block, rows.rep, rows.definition, rows.layers, rows.num_rows)


def shred(values: Any, kind: Any) -> list[LeafRows]:
    return structure.shred(field_of(kind), pa.array(values, kind))


def levels_of(rows: LeafRows) -> tuple[Any, Any, tuple[int, ...]]:
    def listed(stored: Any) -> Any:
        return None if stored is None else stored.tolist()

    return listed(rows.rep), listed(rows.definition), rows.layers


def values_of(rows: LeafRows, kind: Any) -> list[Any]:
    valid = None
    if rows.definition is not None:
        definition = rows.definition
        visible = levels.visible_mask(definition, rows.layers)
        valid = (definition if visible is None else definition[visible]) == 0
    return to_arrow(rows.block, kind, valid).to_pylist()  # type: ignore[no-any-return]


# --------------------------------------------------------------------------- worked examples


def test_lists_of_lists_as_in_section_5_4() -> None:
    kind = pa.list_(pa.list_(pa.int32()))
    rows = [[[0, 1], [], [2]], [[3], []], [], [[4]], None, [None, [5, None]], [[], None]]
    (leaf,) = shred(rows, kind)
    rep, definition, layers = levels_of(leaf)
    assert layers == (3, 6, 6)
    assert rep == [2, 0, 1, 1, 2, 1, 2, 2, 2, 2, 1, 0, 2, 1]
    assert definition == [0, 0, 3, 0, 0, 3, 5, 0, 4, 2, 0, 1, 3, 2]
    assert values_of(leaf, pa.int32()) == [0, 1, 2, 3, 4, 5, None]
    array = structure.assemble(field_of(kind), [[decoded(leaf)]])
    array.validate(full=True)
    assert array.to_pylist() == rows
    assert array.values.offsets.to_pylist() == [0, 2, 2, 3, 4, 4, 5, 5, 7, 7, 7]
    assert array.offsets.to_pylist() == [0, 3, 5, 5, 6, 6, 8, 10]


def test_struct_with_a_list_as_in_section_5_4() -> None:
    kind = pa.struct([("x", pa.int64()), ("y", pa.list_(pa.int16()))])
    rows = [{"x": 1, "y": [1, None]}, None, {"x": None, "y": None}, {"x": 4, "y": []}]
    x, y = shred(rows, kind)
    assert levels_of(x) == (None, [0, 2, 1, 0], (3, 3))
    assert levels_of(y) == ([1, 0, 1, 1, 1], [0, 1, 4, 2, 3], (3, 6, 3))


def test_map_as_in_section_5_4() -> None:
    kind = pa.map_(pa.string(), pa.int32())
    key, value = shred([[("a", 1), ("b", None)], [], None, [("c", 3)]], kind)
    assert levels_of(key) == ([1, 0, 1, 1, 1], [0, 0, 2, 1, 0], (1, 1, 6))
    assert levels_of(value) == ([1, 0, 1, 1, 1], [0, 1, 3, 2, 0], (3, 1, 6))


def test_list_as_in_section_7_2() -> None:
    (leaf,) = shred([[1, 2, 3], None, [], [4, None], [5]], pa.list_(pa.int32()))
    assert levels_of(leaf) == ([1, 0, 0, 1, 1, 1, 0, 1], [0, 0, 0, 2, 3, 0, 1, 0], (3, 6))


def test_all_null_list_as_in_section_7_5() -> None:
    (leaf,) = shred([None, [], [None], [None, None], []], pa.list_(pa.int32()))
    assert levels_of(leaf) == ([1, 1, 1, 1, 0, 1], [2, 3, 1, 1, 1, 3], (3, 6))


def test_structs_without_lists_need_only_definition_levels() -> None:
    kind = pa.struct([("a", pa.int32()), ("s", pa.struct([("b", pa.string())]))])
    a, b = shred([{"a": 1, "s": {"b": "x"}}, None, {"a": None, "s": None}, {"a": 3, "s": {"b": None}}], kind)
    assert levels_of(a) == (None, [0, 2, 1, 0], (3, 3))
    assert levels_of(b) == (None, [0, 3, 2, 1], (3, 3, 3))
    assert a.block.count == b.block.count == 4


def test_layers_say_what_the_rows_hold() -> None:
    kind = pa.struct([("a", pa.int32())])
    (leaf,) = shred([{"a": 1}, {"a": 2}], kind)
    assert levels_of(leaf) == (None, None, (1, 1))
    # the null of the leaf is hidden by the null of its struct
    (leaf,) = shred([{"a": 1}, None], kind)
    assert levels_of(leaf) == (None, [0, 1], (1, 3))
    (leaf,) = shred([[1], [2, 3]], pa.list_(pa.int8()))
    assert levels_of(leaf) == ([1, 1, 0], None, (1, 2))


def test_fixed_size_list_of_structs_repeats_levels() -> None:
    kind = pa.list_(pa.struct([("a", pa.int32()), ("b", pa.string())]), 2)
    rows = [[{"a": 1, "b": "x"}, None], None, [{"a": None, "b": None}, {"a": 4, "b": "y"}]]
    field = field_of(kind)
    a, b = structure.shred(field, pa.array(rows, kind))
    assert levels_of(a) == (None, [0, 2, 3, 3, 1, 0], (3, 3, 3))
    assert a.num_rows == b.num_rows == 6
    assert structure.row_factors(field) == (2, 2)
    array = structure.assemble(field, [[decoded(a)], [decoded(b)]])
    array.validate(full=True)
    assert array.to_pylist() == rows


def test_fixed_size_lists_of_structs_do_not_mix_with_lists() -> None:
    inside = pa.list_(pa.list_(pa.struct([("a", pa.int32())]), 2))
    with pytest.raises(UnsupportedError, match="inside lists"):
        shred([[[{"a": 1}, {"a": 2}]]], inside)
    around = pa.list_(pa.struct([("a", pa.list_(pa.int32()))]), 2)
    with pytest.raises(UnsupportedError, match="inside fixed-size lists"):
        shred([[{"a": [1]}, {"a": []}]], around)


def test_empty_structs_own_a_column_of_nulls() -> None:
    kind = pa.struct([])
    (leaf,) = shred([{}, {}, {}], kind)
    assert isinstance(leaf.block, NullBlock)
    assert levels_of(leaf) == (None, [1, 1, 1], (3,))
    array = structure.assemble(field_of(kind), [[decoded(leaf)]])
    assert array.null_count == 0
    assert array.to_pylist() == [{}, {}, {}]
    with pytest.raises(InvalidInputError, match="cannot be stored"):
        shred([{}, None], kind)


def test_an_empty_struct_takes_its_nulls_from_its_parent() -> None:
    kind = pa.struct([("e", pa.struct([])), ("a", pa.int8())])
    rows = [{"e": {}, "a": 1}, None, {"e": {}, "a": None}]
    field = field_of(kind)
    empty, a = structure.shred(field, pa.array(rows, kind))
    assert structure.assemble(field, [[decoded(empty)], [decoded(a)]]).to_pylist() == rows
    # the reference stores such a column with one layer, whatever lies around it
    simple = Decoded(NullBlock(3), None, np.ones(3, np.uint16), (3,), 3)
    assert structure.assemble(field, [[simple], [decoded(a)]]).to_pylist() == rows


def test_extensions_dictionaries_and_nulls_are_leaves() -> None:
    storage = pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))
    tensor = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [2]), storage)
    field = field_of(tensor.type)
    (leaf,) = structure.shred(field, tensor)
    assert structure.assemble(field, [[decoded(leaf)]]).equals(storage)
    words = pa.array(["a", None, "b", "a"]).dictionary_encode()
    field = field_of(words.type)
    (leaf,) = structure.shred(field, words)
    assert levels_of(leaf) == (None, [0, 1, 0, 0], (3,))
    back = structure.assemble(field, [[decoded(leaf)]])
    assert back.type == words.type
    assert back.to_pylist() == words.to_pylist()
    (leaf,) = shred([None, None], pa.null())
    assert levels_of(leaf) == (None, [1, 1], (3,))
    assert structure.assemble(field_of(pa.null()), [[decoded(leaf)]]).equals(pa.nulls(2))


def test_null_lists_may_cover_items() -> None:
    items = pa.array([1, 2, 3, 4, 5])
    offsets = pa.array([0, 2, 4, 5], pa.int32())
    array = pa.ListArray.from_arrays(offsets, items, mask=pa.array([False, True, False]))
    field = field_of(array.type)
    (leaf,) = structure.shred(field, array)
    assert levels_of(leaf) == ([1, 0, 1, 1], [0, 0, 1, 0], (1, 4))
    assert values_of(leaf, pa.int64()) == [1, 2, 5]
    assert structure.assemble(field, [[decoded(leaf)]]).to_pylist() == [[1, 2], None, [5]]


COVERED = [
    pa.array([[("a", 1)], None, [], [("b", 2)], [("c", None)]], pa.map_(pa.string(), pa.int8())),
    pa.array(["a", None, "b", "c", "d"], pa.string_view()),
    pa.array([[1, 2], None, [3, None], [4, 5], [6, 7]], pa.list_(pa.int8(), 2)),
    pa.array([{"a": 1}, None, {"a": 3}, {"a": 4}, {"a": 5}]),
    pa.nulls(5),
    pa.array(["a", "b", "a", None, "c"]).dictionary_encode(),
    pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, None, 1, 0], pa.int8())),
    pa.array([True, False, None, True, True]),
    pa.array([[1], [2], None, [], [3, 4]]),
]


@pytest.mark.parametrize("items", COVERED, ids=lambda items: str(items.type))
def test_items_below_null_lists_are_dropped(items: Any) -> None:
    mask = pa.array([False, True, False])
    array = pa.ListArray.from_arrays(pa.array([0, 2, 4, 5], pa.int32()), items, mask=mask)
    field = field_of(array.type)
    leaves = structure.shred(field, array)
    back = structure.assemble(field, [[decoded(leaf)] for leaf in leaves])
    back.validate(full=True)
    storage = items.storage if isinstance(items, pa.ExtensionArray) else items
    assert back.to_pylist() == [storage[:2].to_pylist(), None, storage[4:].to_pylist()]


def test_null_structs_may_cover_values_and_children_may_be_slices() -> None:
    child = pa.array([9, 1, None, 3, 4]).slice(1)
    lists = pa.array([[8], [1, 2], [3], None, []]).slice(1)
    mask = pa.array([False, False, True, False])
    array = pa.StructArray.from_arrays([child, lists], names=["a", "b"], mask=mask)
    field = field_of(array.type)
    for rows in (array, array.slice(1), array.slice(2, 1)):
        leaves = structure.shred(field, rows)
        back = structure.assemble(field, [[decoded(leaf)] for leaf in leaves])
        back.validate(full=True)
        assert back.equals(rows)
    a, b = structure.shred(field, array)
    assert levels_of(a) == (None, [0, 1, 2, 0], (3, 3))
    # below a null struct a list is nullable, though it has no null of its own
    assert levels_of(b) == ([1, 0, 1, 1, 1], [0, 0, 0, 3, 2], (1, 6, 3))


def test_members_must_match() -> None:
    field = field_of(pa.struct([("a", pa.int32()), ("b", pa.int32())]))
    with pytest.raises(InvalidInputError, match="members"):
        structure.shred(
            field, pa.array([{"b": 1, "a": 2}], pa.struct([("b", pa.int32()), ("a", pa.int32())]))
        )
    with pytest.raises(InvalidInputError, match="got an array of int32"):
        structure.shred(field, pa.array([1], pa.int32()))


# --------------------------------------------------------------------------- random arrays

LEAVES = st.sampled_from(
    [pa.int32(), pa.bool_(), pa.string(), pa.large_binary(), pa.list_(pa.int16(), 2), pa.null(), pa.float64()]
)


def nested(children: Any) -> Any:
    named = st.lists(children, min_size=1, max_size=3).map(
        lambda kinds: pa.struct([(f"m{i}", kind) for i, kind in enumerate(kinds)])
    )
    maps = children.map(lambda kind: pa.map_(pa.int8(), kind))
    return st.one_of(named, children.map(pa.list_), children.map(pa.large_list), maps)


KINDS = st.recursive(LEAVES, nested, max_leaves=5)


def value_of(kind: Any, draw: Any, nullable: bool = True) -> Any:
    """A random value of a type, None now and then."""
    if pa.types.is_null(kind) or (nullable and draw(st.integers(0, 4)) == 0):
        return None
    if pa.types.is_struct(kind):
        return {kind.field(i).name: value_of(kind.field(i).type, draw) for i in range(kind.num_fields)}
    if pa.types.is_map(kind):
        size = draw(st.integers(0, 2))
        return [
            (value_of(kind.key_type, draw, nullable=False), value_of(kind.item_type, draw))
            for _ in range(size)
        ]
    if pa.types.is_fixed_size_list(kind):
        return [value_of(kind.value_type, draw) for _ in range(kind.list_size)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [value_of(kind.value_type, draw) for _ in range(draw(st.integers(0, 3)))]
    if pa.types.is_boolean(kind):
        return draw(st.booleans())
    if pa.types.is_string(kind):
        return draw(st.sampled_from(["", "a", "äöü", "hello"]))
    if pa.types.is_large_binary(kind):
        return draw(st.sampled_from([b"", b"\x00", b"xyz"]))
    return draw(st.integers(-100, 100))


@st.composite
def arrays(draw: Any, kinds: Any = KINDS) -> Any:
    kind = draw(kinds)
    return pa.array([value_of(kind, draw) for _ in range(draw(st.integers(0, 8)))], kind)


@st.composite
def sliced(draw: Any, kinds: Any = KINDS) -> Any:
    array = draw(arrays(kinds))
    start = draw(st.integers(0, len(array)))
    return array.slice(start, draw(st.integers(0, len(array) - start)))


def check_leaves(leaves: list[LeafRows], factors: tuple[int, ...], rows: int) -> None:
    for leaf, factor in zip(leaves, factors, strict=True):
        assert leaf.num_rows == rows * factor
        levels.check_levels(leaf.rep, leaf.definition, leaf.layers)
        entries = leaf.num_rows if leaf.rep is None else len(leaf.rep)
        assert levels.count_rows(leaf.rep, leaf.layers, entries) == leaf.num_rows
        assert levels.count_visible(leaf.definition, leaf.layers, entries) == leaf.block.count
        assert (leaf.rep is not None) == (levels.max_rep(leaf.layers) > 0)
        assert (leaf.definition is not None) == (levels.max_def(leaf.layers) > 0)


@settings(max_examples=400, deadline=None)
@given(sliced())
def test_assembling_what_was_shredded_is_the_identity(array: Any) -> None:
    field = field_of(array.type)
    leaves = structure.shred(field, array)
    check_leaves(leaves, structure.row_factors(field), len(array))
    back = structure.assemble(field, [[decoded(leaf)] for leaf in leaves])
    back.validate(full=True)
    assert back.type == field.arrow_type
    assert back.equals(array.cast(field.arrow_type)), (back, array)


FSL_KINDS = st.lists(LEAVES, min_size=1, max_size=3).map(
    lambda kinds: pa.list_(pa.struct([(f"m{i}", kind) for i, kind in enumerate(kinds)]), 3)
)


@settings(max_examples=100, deadline=None)
@given(sliced(FSL_KINDS))
def test_fixed_size_lists_of_structs_round_trip(array: Any) -> None:
    field = field_of(array.type)
    leaves = structure.shred(field, array)
    check_leaves(leaves, structure.row_factors(field), len(array))
    back = structure.assemble(field, [[decoded(leaf)] for leaf in leaves])
    back.validate(full=True)
    assert back.to_pylist() == array.to_pylist()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_batches_merge_and_rows_slice(data: Any) -> None:
    array = data.draw(arrays())
    field = field_of(array.type)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(array)), max_size=3)))
    bounds = [0, *cuts, len(array)]
    parts = [structure.shred(field, array.slice(a, b - a)) for a, b in pairwise(bounds)]
    merged = [structure.merge(list(column)) for column in zip(*parts, strict=True)]
    check = structure.assemble(field, [[decoded(leaf)] for leaf in merged])
    assert check.equals(array.cast(field.arrow_type))
    # the same batches as pages of their own, every leaf cut elsewhere
    leaves = []
    for leaf in merged:
        cut = data.draw(st.integers(0, leaf.num_rows))
        pieces = [structure.slice_rows(leaf, 0, cut), structure.slice_rows(leaf, cut, leaf.num_rows - cut)]
        leaves.append([decoded(piece) for piece in pieces])
    back = structure.assemble(field, leaves)
    back.validate(full=True)
    assert back.equals(array.cast(field.arrow_type))
    pages = [[decoded(leaf) for leaf in column] for column in zip(*parts, strict=True)]
    assert structure.assemble(field, pages).equals(array.cast(field.arrow_type))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_levels_give_an_error_or_valid_arrays(data: Any) -> None:
    array = data.draw(arrays())
    field = field_of(array.type)
    leaves = [decoded(leaf) for leaf in structure.shred(field, array)]
    for _ in range(data.draw(st.integers(1, 3))):
        leaf = data.draw(st.sampled_from(leaves))
        kind = data.draw(st.sampled_from(["rep", "definition", "layers", "num_rows", "drop"]))
        stored = getattr(leaf, kind) if kind in ("rep", "definition") else None
        if kind == "layers":
            layers = list(leaf.layers)
            layers[data.draw(st.integers(0, len(layers) - 1))] = data.draw(st.integers(1, 6))
            leaf.layers = tuple(layers)
        elif kind == "num_rows":
            leaf.num_rows = max(0, leaf.num_rows + data.draw(st.integers(-2, 2)))
        elif kind == "drop":
            setattr(leaf, data.draw(st.sampled_from(["rep", "definition"])), None)
        elif stored is not None and len(stored):
            stored = stored.copy()
            stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 7))
            setattr(leaf, kind, stored)
    try:
        back = structure.assemble(field, [[leaf] for leaf in leaves])
    except PilumError:
        return
    back.validate(full=True)
    again = structure.shred(field, back)
    assert structure.assemble(field, [[decoded(leaf)] for leaf in again]).equals(back)


# --------------------------------------------------------------------------- joining pages


def test_merge_renumbers_levels() -> None:
    kind = pa.list_(pa.int32())
    parts = [shred([[1]], kind)[0], shred([[], [2, None]], kind)[0], shred([None], kind)[0]]
    assert [part.layers for part in parts] == [(1, 2), (3, 5), (1, 4)]
    merged = structure.merge(parts)
    assert levels_of(merged) == ([1, 1, 1, 0, 1], [0, 3, 0, 1, 2], (3, 6))
    back = structure.assemble(field_of(kind), [[decoded(merged)]])
    assert back.to_pylist() == [[1], [], [2, None], None]


def test_pages_of_nulls_join_pages_of_values() -> None:
    field = field_of(pa.string())
    pages = [
        Decoded(NullBlock(2), None, np.ones(2, np.uint16), (3,), 2),
        *map(decoded, shred(["a", None], pa.string())),
        *map(decoded, shred(["b"], pa.string())),
    ]
    assert structure.assemble(field, [pages]).to_pylist() == [None, None, "a", None, "b"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.int32(),
        pa.list_(pa.struct([("a", pa.int8())])),
        pa.dictionary(pa.int8(), pa.string()),
        pa.struct([]),
    ],
)
def test_no_pages_no_rows(kind: Any) -> None:
    field = field_of(kind)
    array = structure.assemble(field, [[] for _ in field.leaves()])
    array.validate(full=True)
    assert len(array) == 0
    assert array.type == kind


def test_an_outer_layer_that_says_nothing_is_tolerated() -> None:
    page = Decoded(FixedBlock(32, np.zeros(8, np.uint8), 2), None, None, (1, 1), 2)
    assert structure.assemble(field_of(pa.int32()), [[page]]).to_pylist() == [0, 0]


def page_of(
    count: int, rep: Any = None, definition: Any = None, layers: Any = (1,), num_rows: int | None = None
) -> Decoded:
    def stored(values: Any) -> Any:
        return None if values is None else np.array(values, np.uint16)

    rows = count if num_rows is None else num_rows
    return Decoded(
        FixedBlock(8, np.zeros(count, np.uint8), count), stored(rep), stored(definition), layers, rows
    )


@pytest.mark.parametrize(
    ("kind", "pages", "message"),
    [
        (pa.int8(), [page_of(2, num_rows=3)], "place 3 values, the page has 2"),
        (pa.int8(), [page_of(2, definition=[0, 0, 0], layers=(3,))], "3 rows instead of 2"),
        (pa.int8(), [page_of(2, definition=[0, 2], layers=(3,))], "definition level 2"),
        (pa.int8(), [page_of(2, layers=(2,))], "do not fit"),
        (pa.int8(), [page_of(2, layers=(1, 3))], "do not fit"),
        (pa.list_(pa.int8()), [page_of(2, layers=(1,))], "do not fit"),
        (pa.list_(pa.int8()), [page_of(2, layers=(1, 2))], "no repetition levels"),
        (pa.list_(pa.int8()), [page_of(2, [0, 1], layers=(1, 2), num_rows=1)], "first entry"),
        (pa.list_(pa.int8()), [page_of(2, [1, 2], layers=(1, 2))], "repetition level 2"),
        (pa.list_(pa.int8()), [page_of(2, [1, 0], layers=(1, 2))], "1 rows instead of 2"),
        (pa.list_(pa.int8()), [page_of(1, [1, 0], [1, 0], (1, 4), 1)], "contradict"),
        (pa.list_(pa.int8()), [page_of(1, [1, 0], [0, 1], (1, 4), 1)], "contradict"),
        (pa.list_(pa.int8()), [page_of(2, [1, 0], [0], (1, 4), 1)], "2 repetition levels but 1"),
        (pa.list_(pa.list_(pa.int8())), [page_of(1, [2, 0], [1, 0], (1, 2, 4), 1)], "contradict"),
    ],
)
def test_contradictions_are_reported(kind: Any, pages: list[Decoded], message: str) -> None:
    with pytest.raises(CorruptFileError, match=message):
        structure.assemble(field_of(kind), [pages])


def test_siblings_must_agree() -> None:
    field = field_of(pa.struct([("a", pa.int8()), ("b", pa.int8())]))
    with pytest.raises(CorruptFileError, match="2 and 3 rows"):
        structure.assemble(field, [[page_of(2, layers=(1, 1))], [page_of(3, layers=(1, 1))]])
    field = field_of(pa.list_(pa.struct([("a", pa.int8()), ("b", pa.int8())])))
    a, b = page_of(2, [1, 0], layers=(1, 1, 2), num_rows=1), page_of(1, [1], layers=(1, 1, 2))
    with pytest.raises(CorruptFileError, match="disagree"):
        structure.assemble(field, [[a], [b]])


def test_size_counts_values_and_levels() -> None:
    (leaf,) = shred(["abc", None, "d"], pa.string())
    assert structure.size_of(leaf) == 4 + 16 + 6
    (leaf,) = shred([[1, None], None], pa.list_(pa.int16(), 2))
    assert structure.size_of(leaf) == 8 + 1 + 4
