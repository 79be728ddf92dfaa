"""Functions on lists (spec api.md, section 10.6): types and arguments here, kernels in `list_functions`.

Membership, length, position, extremes and distance work on flat values.  Functions that build new lists
(array_sort, array_except, …) run in Python once per distinct list: filters rarely use them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilum import arrays
from pilum.errors import InvalidInputError
from pilum.query import list_functions as kernels
from pilum.query.coercion import cast, common_type, is_list, is_number, is_string, logical_type, try_fit
from pilum.query.expressions import Bound, Constant
from pilum.query.function_kit import ANY, Function, Table, apply, fixed_text, integer, null, per_value
from pilum.query.vectors import broadcast, per_distinct

__all__ = ["ARRAY_FUNCTIONS", "make_array"]

types = pa.types


def _list(argument: Bound, name: str) -> Bound:
    if not is_list(argument.type):
        raise InvalidInputError(f"{name} needs a list, not {argument.type}")
    return argument


def _item_type(argument: Bound) -> pa.DataType:
    return logical_type(argument.type.value_type)


def _item(argument: Bound, lists: Bound, name: str) -> Bound:
    """The argument as an item of the list."""
    target = _item_type(lists)
    if isinstance(argument, Constant):
        fitted = try_fit(argument, target)
        if fitted is not None:
            return Constant(fitted)
    mixed = is_string(argument.type) != is_string(target) and not types.is_null(argument.type)
    if mixed or common_type(argument.type, target) is None:
        raise InvalidInputError(f"{name}: {argument.type} is not an item of {lists.type}")
    return cast(argument, target)


def _same_list(argument: Bound, lists: Bound, name: str) -> Bound:
    """The second list with the items of the first."""
    _list(argument, name)
    target = pa.list_(_item_type(lists))
    if isinstance(argument, Constant):
        value = argument.value
        if value is None or not value:
            return Constant(arrays.scalar(value, target))
        fitted = try_fit(argument, target)
        if fitted is not None:
            return Constant(fitted)
    return cast(argument, target) if argument.type != target else argument


# --- building ----------------------------------------------------------------------------------------------


def make_array(*args: Bound) -> Bound:
    """A list of the arguments, of their common type."""
    type_ = pa.null()
    for argument in args:
        wider = common_type(type_, argument.type)
        if wider is None:
            raise InvalidInputError(f"a list cannot hold both {type_} and {argument.type}")
        type_ = wider
    if all(isinstance(argument, Constant) for argument in args):
        values = [cast(argument, type_) for argument in args]
        items = [value.value for value in values if isinstance(value, Constant)]
        literal = all(argument.literal for argument in args if isinstance(argument, Constant))
        return Constant(arrays.scalar(items, pa.list_(type_)), literal=literal)
    width = len(args)

    def kernel(*operands: Any) -> Any:
        columns = broadcast(*operands)
        rows = len(columns[0])
        order = np.arange(rows * width).reshape(width, rows).T.reshape(-1)
        flat = pa.concat_arrays(columns).take(arrays.from_numpy(order))
        return pa.ListArray.from_arrays(np.arange(0, rows * width + 1, width, dtype=np.int32), flat)

    return apply("make_array", tuple(cast(argument, type_) for argument in args), pa.list_(type_), kernel)


def _range(*args: Bound) -> Bound:
    bounds = [integer(argument, "range") for argument in args]

    def one(*values: int) -> list[int]:
        if len(values) == 3 and values[2] == 0:
            raise pa.ArrowInvalid("range with a step of 0")
        numbers = range(*values)
        if len(numbers) > 1 << 24:
            raise pa.ArrowInvalid(f"range of {len(numbers)} numbers")
        return list(numbers)

    return per_value("range", pa.list_(pa.int64()), one, *bounds)


# --- looking inside ----------------------------------------------------------------------------------------


def _has(lists: Bound, item: Bound) -> Bound:
    lists = _list(lists, "array_has")
    wanted = _item(item, lists, "array_has")
    if isinstance(wanted, Constant) and wanted.value is None:
        return null(pa.bool_())
    return apply("array_has", (lists, wanted), pa.bool_(), kernels.has)


def _has_several(
    name: str, kernel: Callable[..., Any], test: Callable[[set[Any], set[Any]], bool]
) -> Function:
    def build(lists: Bound, items: Bound) -> Bound:
        lists = _list(lists, name)
        wanted = _same_list(items, lists, name)
        if not isinstance(wanted, Constant):
            return per_value(name, pa.bool_(), lambda a, b: test(set(a), set(b)), lists, wanted)
        if wanted.value is None:
            return null(pa.bool_())
        scalars = [arrays.scalar(value, _item_type(lists)) for value in wanted.value]
        if name == "array_has_any" and not scalars:
            return Constant(arrays.scalar(False))
        return apply(name, (lists,), pa.bool_(), lambda values: kernel(values, scalars))

    return Function(build, 2)


def _length(lists: Bound, dimension: Bound | None = None) -> Bound:
    if dimension is not None and not (isinstance(dimension, Constant) and dimension.value == 1):
        raise InvalidInputError("array_length counts the first dimension only")
    return apply("array_length", (_list(lists, "array_length"),), pa.uint64(), kernels.length)


def _empty(lists: Bound) -> Bound:
    return apply(
        "empty", (_list(lists, "empty"),), pa.bool_(), lambda values: pc.equal(kernels.length(values), 0)
    )


def _element(lists: Bound, index: Bound) -> Bound:
    lists = _list(lists, "a subscript")
    return apply("element", (lists, integer(index, "a subscript")), _item_type(lists), kernels.element)


def _position(lists: Bound, item: Bound) -> Bound:
    lists = _list(lists, "array_position")
    return apply(
        "array_position", (lists, _item(item, lists, "array_position")), pa.uint64(), kernels.position
    )


def _extreme(name: str, largest: bool) -> Function:
    def build(lists: Bound) -> Bound:
        lists = _list(lists, name)
        return apply(
            name, (lists,), _item_type(lists), lambda values: kernels.reduce_extreme(values, largest=largest)
        )

    return Function(build)


def _distance(left: Bound, right: Bound) -> Bound:
    for side in (left, right):
        if not is_list(side.type) or not is_number(_item_type(side)):
            raise InvalidInputError(f"array_distance needs lists of numbers, not {side.type}")
    numbers = pa.list_(pa.float64())
    return apply("array_distance", (cast(left, numbers), cast(right, numbers)), pa.float64(), _euclidean)


def _euclidean(left: Any, right: Any) -> Any:
    a, b = (kernels.Lists.of(side) for side in broadcast(left, right))
    valid = a.valid & b.valid
    if np.any(a.lengths[valid] != b.lengths[valid]):
        raise pa.ArrowInvalid("array_distance of lists of different lengths")
    rows = np.flatnonzero(valid)
    flat = [
        kernels.Lists(side.starts[rows], side.lengths[rows], side.values, side.valid[rows]).flatten()
        for side in (a, b)
    ]
    difference = arrays.to_numpy(pc.subtract(flat[0][1], flat[1][1]))
    out = np.zeros(len(valid))
    out[rows] = np.sqrt(np.bincount(flat[0][0], difference**2, minlength=len(rows))[: len(rows)])
    return arrays.from_numpy(out, mask=~valid)


# --- making other lists ------------------------------------------------------------------------------------


def _rebuilt(name: str, function: Callable[..., Any], kinds: str = "l", *, grows: bool = False) -> Function:
    """A Python function on the list and further arguments.

    ``kinds``: one letter an argument: l for a list of the same items, x for an item, i for an integer.
    ``grows``: what is added to a null list starts a new one.
    """
    least = sum(1 for kind in kinds if kind.islower())

    def build(*args: Bound) -> Bound:
        lists = _list(args[0], name)
        typed: list[Bound] = [lists]
        for argument, kind in zip(args[1:], kinds[1:].lower(), strict=False):
            if kind == "l":
                typed.append(_same_list(argument, lists, name))
            elif kind == "x":
                typed.append(_item(argument, lists, name))
            else:
                typed.append(integer(argument, name))
        type_ = pa.list_(_item_type(lists))

        def one(*values: Any) -> Any:
            # Only the items may be null.
            if grows and values[0] is None:
                values = ([], *values[1:])
            if values[0] is None or any(
                v is None and k != "x" for v, k in zip(values, kinds.lower(), strict=False)
            ):
                return None
            return function(*values)

        return per_value(name, type_, one, *typed, null_in=True)

    return Function(build, least, len(kinds))


def _distinct(items: list[Any]) -> list[Any]:
    out: list[Any] = []
    seen: set[Any] = set()
    for item in items:
        key = _key(item)
        if key not in seen:
            seen.add(key)
            out.append(item)
    return out


def _key(item: Any) -> Any:
    """Equal items have equal keys; NaN equals NaN."""
    if isinstance(item, float) and item != item:
        return "nan", None
    return repr(item) if isinstance(item, (list, dict)) else item


def _without(items: list[Any], others: list[Any]) -> list[Any]:
    gone = {_key(other) for other in others}
    return _distinct([item for item in items if _key(item) not in gone])


def _common(items: list[Any], others: list[Any]) -> list[Any]:
    kept = {_key(other) for other in others}
    return _distinct([item for item in items if _key(item) in kept])


def _sorted(items: list[Any]) -> list[Any]:
    present = sorted((item for item in items if item is not None), key=lambda item: (item != item, item))
    return [None] * (len(items) - len(present)) + present


def _slice(items: list[Any], first: int, last: int, step: int = 1) -> list[Any]:
    begin = first - 1 if first > 0 else max(len(items) + first, 0) if first < 0 else 0
    end = last if last >= 0 else len(items) + last + 1
    return items[begin : max(end, 0) : step] if step > 0 else []


def _flatten(lists: Bound) -> Bound:
    item = _item_type(_list(lists, "flatten"))
    if not is_list(item):
        return lists
    type_ = pa.list_(logical_type(item.value_type))
    return per_value(
        "flatten", type_, lambda value: [each for part in value if part is not None for each in part], lists
    )


def _to_string(lists: Bound, separator: Bound, null_text: Bound | None = None) -> Bound:
    lists = _list(lists, "array_to_string")
    between = fixed_text(separator, "array_to_string", "separator")
    missing = None if null_text is None else fixed_text(null_text, "array_to_string", "text for null")
    if between is None:
        return null(pa.string())
    as_text = cast(lists, pa.list_(pa.string())) if _item_type(lists) != pa.string() else lists

    def join(items: list[str | None]) -> str:
        shown = [missing if item is None else item for item in items]
        return between.join(item for item in shown if item is not None)

    return apply(
        "array_to_string", (as_text,), pa.string(), lambda values: per_distinct(join, pa.string(), values)
    )


_HAS = Function(_has, 2)
_HAS_ANY = _has_several("array_has_any", kernels.has_any, lambda a, b: bool(a & b))
_HAS_ALL = _has_several("array_has_all", kernels.has_all, lambda a, b: b <= a)
_LENGTH = Function(_length, 1, 2)
_EMPTY = Function(_empty)
_ELEMENT = Function(_element, 2)
_POSITION = Function(_position, 2)
_TO_STRING = Function(_to_string, 2, 3)
_MAKE = Function(make_array, 0, ANY)

_NAMED: Table = {
    "has": _HAS,
    "contains": _HAS,
    "has_any": _HAS_ANY,
    "has_all": _HAS_ALL,
    "length": _LENGTH,
    "empty": _EMPTY,
    "element": _ELEMENT,
    "extract": _ELEMENT,
    "position": _POSITION,
    "max": _extreme("array_max", True),
    "min": _extreme("array_min", False),
    "distance": Function(_distance, 2),
    "distinct": _rebuilt("array_distinct", _distinct),
    "sort": _rebuilt("array_sort", _sorted),
    "reverse": _rebuilt("array_reverse", lambda items: items[::-1]),
    "except": _rebuilt("array_except", _without, "ll"),
    "intersect": _rebuilt("array_intersect", _common, "ll"),
    "union": _rebuilt("array_union", lambda a, b: _distinct(a + b), "ll"),
    "concat": _rebuilt("array_concat", lambda a, b: a + b, "ll", grows=True),
    "append": _rebuilt("array_append", lambda items, item: [*items, item], "lx", grows=True),
    "remove": _rebuilt(
        "array_remove",
        lambda items, item: [each for at, each in enumerate(items) if each != item or item in items[:at]],
        "lx",
    ),
    "remove_all": _rebuilt(
        "array_remove_all", lambda items, item: [each for each in items if each != item], "lx"
    ),
    "slice": _rebuilt("array_slice", _slice, "liiI"),
    "to_string": _TO_STRING,
    "join": _TO_STRING,
}

ARRAY_FUNCTIONS: Table = {
    **{f"{prefix}_{name}": function for prefix in ("array", "list") for name, function in _NAMED.items()},
    "cardinality": _LENGTH,
    "element": _ELEMENT,
    "empty": _EMPTY,
    "flatten": Function(_flatten),
    "make_array": _MAKE,
    "make_list": _MAKE,
    "range": Function(_range, 1, 3),
}
