"""Logical type strings ↔ Arrow types: one table, read both ways.

Every stored field names its type with a short string (file-container-and-structure.md
section 3.2, table.md section 10.2)::

    int32   timestamp:us:-   decimal:128:10:2   fixed_size_list:float:128   dict:string:int32:false
    struct  list.struct      large_list         map                         (types with child fields)

Types without parameters are rows of `PLAIN`.  Parameterised and nested types have one parser
each in `_PARSERS`, keyed by the text before the first colon, and one printer in `_PRINTERS`,
keyed by Arrow type id.  Children of nested types are passed as Arrow fields: the string alone
does not say them.

The format stores less than Arrow knows: views become their plain counterpart, the item field of
a primitive fixed-size list loses name and nullability, a dictionary loses its ordered flag.
Extension types are their storage plus field metadata, which `field.py` keeps.  Must not know:
field ids, columns, files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from pilum.errors import InvalidInputError, UnsupportedError

__all__ = [
    "BFLOAT16",
    "EXTENSION_METADATA",
    "EXTENSION_NAME",
    "arrow_type_of",
    "extension_name_of",
    "leaf_type_of",
    "logical_type_of",
]

EXTENSION_NAME = "ARROW:extension:name"
EXTENSION_METADATA = "ARROW:extension:metadata"
BFLOAT16 = "lance.bfloat16"

PLAIN: dict[str, Any] = {
    "null": pa.null(),
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "halffloat": pa.float16(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "date32:day": pa.date32(),
    "date64:ms": pa.date64(),
    "time32:s": pa.time32("s"),
    "time32:ms": pa.time32("ms"),
    "time64:us": pa.time64("us"),
    "time64:ns": pa.time64("ns"),
    "duration:s": pa.duration("s"),
    "duration:ms": pa.duration("ms"),
    "duration:us": pa.duration("us"),
    "duration:ns": pa.duration("ns"),
}
# Names that are read but never written for these types: the reverse table is built above them.
_NAMES: dict[Any, str] = {arrow: name for name, arrow in PLAIN.items()}
_NAMES[pa.string_view()] = "string"
_NAMES[pa.binary_view()] = "binary"
PLAIN["json"] = pa.large_binary()
PLAIN["blob"] = pa.large_binary()


# ---------------------------------------------------------------- string -> Arrow


def arrow_type_of(logical: str, children: Sequence[Any] = ()) -> Any:
    """Arrow type of a logical type string.

    Args:
        logical: for example ``"timestamp:us:-"``.
        children: `pa.Field` of each child field, for struct, lists, map and fixed-size lists
            of struct; empty for all others.

    Raises:
        UnsupportedError: the string names no known type, or the children do not fit it.
    """
    nested = _NESTED.get(logical)
    if nested is not None:
        return nested(logical, children)
    if children:
        # fixed_size_list:struct:N is the one parameterised type with a child field.
        if logical.startswith("fixed_size_list:struct:"):
            return _fixed_size_list_of_struct(logical, children)
        raise UnsupportedError(f"logical type {logical!r} with {len(children)} child fields is not known")
    return leaf_type_of(logical)


@lru_cache(maxsize=1024)
def leaf_type_of(logical: str) -> Any:
    """`arrow_type_of` for types without child fields; cached."""
    if logical == "struct":
        return pa.struct([])
    plain = PLAIN.get(logical)
    if plain is not None:
        return plain
    parser = _PARSERS.get(logical.partition(":")[0])
    if parser is not None:
        try:
            return parser(logical)
        except (ValueError, TypeError, KeyError, pa.ArrowException):
            pass
    raise UnsupportedError(
        f"logical type {logical!r} is not known; it may come from a newer version of the format"
    )


def _timestamp(logical: str) -> Any:
    _, unit, zone = logical.split(":", 2)  # the zone may contain colons
    return pa.timestamp(unit, None if zone == "-" else zone)


def _decimal(logical: str) -> Any:
    _, bits, precision, scale = logical.split(":")
    make: Callable[[int, int], Any] = {"128": pa.decimal128, "256": pa.decimal256}[bits]
    return make(int(precision), int(scale))


def _fixed_size_binary(logical: str) -> Any:
    return pa.binary(_size(logical.split(":", 1)[1], smallest=0))


def _fixed_size_list(logical: str) -> Any:
    item, size = logical.split(":", 1)[1].rsplit(":", 1)
    if item == "struct":
        raise ValueError("the item struct must be a child field")
    if item == BFLOAT16:
        field = pa.field("item", pa.binary(2), metadata={EXTENSION_NAME: BFLOAT16, EXTENSION_METADATA: ""})
    else:
        field = pa.field("item", leaf_type_of(item))
    return pa.list_(field, _size(size, smallest=1))


def _dictionary(logical: str) -> Any:
    _, rest = logical.split(":", 1)
    values, index, _ordered = rest.rsplit(":", 2)
    return pa.dictionary(leaf_type_of(index), leaf_type_of(values))


def _size(text: str, *, smallest: int) -> int:
    size = int(text)
    if not smallest <= size < 2**31:
        raise ValueError(f"size {size} out of range")
    return size


def _struct(logical: str, children: Sequence[Any]) -> Any:
    return pa.struct(list(children))


def _list(logical: str, children: Sequence[Any]) -> Any:
    return pa.list_(_only(logical, children))


def _large_list(logical: str, children: Sequence[Any]) -> Any:
    return pa.large_list(_only(logical, children))


def _map(logical: str, children: Sequence[Any]) -> Any:
    entries = _only(logical, children)
    if (
        not pa.types.is_struct(entries.type)
        or entries.type.num_fields != 2
        or entries.type.field(0).type == pa.null()
    ):
        raise UnsupportedError(f"a map needs one struct of key and value, found {entries.type}")
    return pa.map_(entries.type.field(0).with_nullable(False), entries.type.field(1))


def _fixed_size_list_of_struct(logical: str, children: Sequence[Any]) -> Any:
    try:
        return pa.list_(_only(logical, children), _size(logical.rsplit(":", 1)[1], smallest=1))
    except ValueError:
        raise UnsupportedError(f"logical type {logical!r} has no valid size") from None


def _only(logical: str, children: Sequence[Any]) -> Any:
    if len(children) != 1:
        raise UnsupportedError(f"logical type {logical!r} needs one child field, found {len(children)}")
    return children[0]


_PARSERS: dict[str, Callable[[str], Any]] = {
    "timestamp": _timestamp,
    "decimal": _decimal,
    "fixed_size_binary": _fixed_size_binary,
    "fixed_size_list": _fixed_size_list,
    "dict": _dictionary,
}
_NESTED: dict[str, Callable[[str, Sequence[Any]], Any]] = {
    "struct": _struct,
    "list": _list,
    "list.struct": _list,
    "large_list": _large_list,
    "large_list.struct": _large_list,
    "map": _map,
}


# ---------------------------------------------------------------- Arrow -> string


@lru_cache(maxsize=1024)
def logical_type_of(arrow_type: Any) -> str:
    """Logical type string of an Arrow type (of its storage, if it is an extension type).

    Raises:
        InvalidInputError: the format cannot store the type; the message says what can be done.
    """
    name = _NAMES.get(arrow_type)
    if name is not None:
        return name
    if isinstance(arrow_type, pa.BaseExtensionType):
        return logical_type_of(arrow_type.storage_type)
    printer = _PRINTERS.get(arrow_type.id)
    if printer is None:
        raise InvalidInputError(
            f"Arrow type {arrow_type} cannot be stored; cast the column to a supported type"
        )
    return printer(arrow_type)


def extension_name_of(field: Any) -> str:
    """Extension name of a `pa.Field`, from its type or its metadata; empty if it has none."""
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    metadata = field.metadata
    return metadata.get(EXTENSION_NAME.encode(), b"").decode() if metadata else ""


def _print_fixed_size_list(arrow_type: Any) -> str:
    item = arrow_type.value_field
    if arrow_type.list_size < 1:
        raise InvalidInputError("a fixed-size list of dimension 0 cannot be stored")
    storage = item.type.storage_type if isinstance(item.type, pa.BaseExtensionType) else item.type
    if extension_name_of(item) == BFLOAT16:
        text = BFLOAT16
    elif pa.types.is_struct(storage):
        text = "struct"
    elif storage.id in _NOT_IN_FIXED_SIZE_LISTS or _holds_struct(storage):
        raise InvalidInputError(
            f"Arrow type {arrow_type} cannot be stored: the items of a fixed-size list must have a fixed width; "
            "use a list, or a struct of lists"
        )
    else:
        text = logical_type_of(storage)
    return f"fixed_size_list:{text}:{arrow_type.list_size}"


def _holds_struct(arrow_type: Any) -> bool:
    # A fixed-size list has child fields only if its direct item is a struct, so a struct
    # further down would be lost.
    while pa.types.is_fixed_size_list(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(pa.types.is_struct(arrow_type))


def _print_dictionary(arrow_type: Any) -> str:
    values = logical_type_of(arrow_type.value_type)
    if arrow_type.value_type.num_fields or ":" in values:
        raise InvalidInputError(
            f"dictionary values of type {arrow_type.value_type} cannot be stored; "
            "decode the column, or use values without parameters"
        )
    return f"dict:{values}:{logical_type_of(arrow_type.index_type)}:false"


def _print_list(arrow_type: Any) -> str:
    prefix = "large_list" if pa.types.is_large_list(arrow_type) else "list"
    return f"{prefix}.struct" if pa.types.is_struct(arrow_type.value_type) else prefix


def _print_map(arrow_type: Any) -> str:
    if arrow_type.keys_sorted:
        raise InvalidInputError(
            "a map with sorted keys cannot be stored; cast it to a map with keys_sorted=False"
        )
    return "map"


_NOT_IN_FIXED_SIZE_LISTS = frozenset(
    arrow_type.id
    for arrow_type in (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.list_(pa.null()),
        pa.large_list(pa.null()),
        pa.map_(pa.int8(), pa.null()),
        pa.dictionary(pa.int8(), pa.string()),
        pa.null(),
    )
)
_PRINTERS: dict[int, Callable[[Any], str]] = {
    pa.timestamp("s").id: lambda t: f"timestamp:{t.unit}:{t.tz or '-'}",
    pa.decimal128(1).id: lambda t: f"decimal:128:{t.precision}:{t.scale}",
    pa.decimal256(1).id: lambda t: f"decimal:256:{t.precision}:{t.scale}",
    pa.binary(1).id: lambda t: f"fixed_size_binary:{t.byte_width}",
    pa.struct([]).id: lambda t: "struct",
    pa.list_(pa.null()).id: _print_list,
    pa.large_list(pa.null()).id: _print_list,
    pa.list_(pa.null(), 1).id: _print_fixed_size_list,
    pa.map_(pa.int8(), pa.null()).id: _print_map,
    pa.dictionary(pa.int8(), pa.string()).id: _print_dictionary,
}
