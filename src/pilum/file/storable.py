"""What a file of a version can hold, and which arrays a field takes.  Pure.

`check_storable` refuses a schema before a byte is written; what the format stores at all is the business of
`pilum.schema.logical` (`spec/file-container-and-structure.md`, sections 3 and 4).  `accepts` compares an array's type with
a field by what is stored: extension types are their storage, views their plain counterpart, and names and
nullability of list items do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pilum.errors import InvalidInputError, UnsupportedError
from pilum.schema import Field, Schema, arrow_type_of, column_fields, is_prepared, logical_type_of
from pilum.schema.field import BLOB_V2
from pilum.schema.jsonb import is_json_text

__all__ = ["accepts", "check_described_blobs", "check_storable", "check_widths"]

_LISTS = ("list", "list.struct", "large_list", "large_list.struct", "map")
_NO_BYTES = "fixed_size_binary:0"
_BLOB_TYPES = ("large_binary", "blob")


def check_storable(schema: Schema, version: tuple[int, int]) -> None:
    """Refuse what the format version cannot hold.

    Raises:
        UnsupportedError: a type that this version has no form for; the message names a version that has.
        InvalidInputError: a type that no version stores in the way that the metadata of the field asks for.
    """
    column_fields(schema, version)
    check_widths(schema.fields, version)
    check_described_blobs(schema, version)
    for top in schema.fields:
        _check(top, version, in_list=False, in_fixed=False)


def _check(field: Field, version: tuple[int, int], *, in_list: bool, in_fixed: bool) -> None:
    logical = field.logical_type
    is_list = logical in _LISTS
    is_fixed = bool(field.children) and logical.startswith("fixed_size_list:")
    if version < (2, 2) and (logical == "map" or is_fixed):
        raise UnsupportedError(f"column {field.name!r}: {logical} needs file format 2.2")
    if (is_list and in_fixed) or (is_fixed and in_list):
        raise UnsupportedError(
            f"column {field.name!r}: fixed-size lists of structs and lists cannot be nested in one another"
        )
    if field.is_blob:
        _check_blob(field, version, in_list)
    elif field.is_packed and field.children:
        _check_packed(field, version)
    else:
        for child in field.children:
            _check(child, version, in_list=in_list or is_list, in_fixed=in_fixed or is_fixed)


def check_widths(fields: Sequence[Field], version: tuple[int, int]) -> None:
    """Refuse values of no bytes where they cannot be stored: anywhere but in pages of one value, which 2.2 has.

    Raises:
        UnsupportedError: there are some before 2.2, in fixed-size lists or in packed structs.
    """
    for field in fields:
        logical = field.logical_type
        if logical == _NO_BYTES and version < (2, 2):
            raise UnsupportedError(f"column {field.name!r}: {field.arrow_type} needs file format 2.2")
        packed = field.is_packed and any(child.logical_type == _NO_BYTES for child in field.children)
        if packed or f":{_NO_BYTES}:" in logical:
            raise UnsupportedError(
                f"column {field.name!r}: values of no bytes cannot be stored in a {field.arrow_type}"
            )
        check_widths(field.children, version)


def _check_blob(field: Field, version: tuple[int, int], in_list: bool) -> None:
    if is_prepared(field):
        return
    if field.logical_type not in _BLOB_TYPES:
        raise InvalidInputError(
            f"column {field.name!r}: a blob column is large_binary, not {field.logical_type}"
        )
    if in_list:
        raise UnsupportedError(f"column {field.name!r}: blobs inside lists cannot be stored")


def check_described_blobs(schema: Schema, version: tuple[int, int]) -> None:
    """Refuse structs that stand for blobs, except prepared ones in 2.2 and later.

    Raises:
        UnsupportedError: an earlier version; blobs as bytes or addresses.
        InvalidInputError: any other struct.
    """
    for field in schema.walk():
        if not field.is_blob or (field.logical_type != "struct" and field.extension_name != BLOB_V2):
            continue
        if version < (2, 2):
            raise UnsupportedError(f"column {field.name!r}: blobs with descriptors need file format 2.2")
        members = [child.name for child in field.children]
        if members[:2] == ["data", "uri"]:
            raise UnsupportedError(
                f"column {field.name!r}: blobs are not written as bytes or addresses yet; write them with"
                " open_packed_blob_writer or open_dedicated_blob_writer of a LanceFileSession, or describe them with"
                " a BlobDescriptorArrayBuilder"
            )
        if not is_prepared(field):
            raise InvalidInputError(
                f"column {field.name!r}: blobs are written as the descriptors of blob writers and of"
                f" BlobDescriptorArrayBuilder, not as a {field.arrow_type}; descriptors that were read say where bytes"
                " lie in their own file"
            )


def _check_packed(field: Field, version: tuple[int, int]) -> None:
    fixed = True
    for member in field.children:
        kind = member.arrow_type
        types = pa.types
        if types.is_fixed_size_list(kind) and not member.children:
            fixed = False
        elif types.is_nested(kind) or types.is_dictionary(kind) or types.is_null(kind):
            raise UnsupportedError(
                f"column {field.name!r}: a packed struct cannot hold {member.name!r}, a {kind}"
            )
        elif types.is_boolean(kind):
            raise UnsupportedError(
                f"column {field.name!r}: a packed struct cannot hold the boolean {member.name!r}; use uint8"
            )
        else:
            fixed = fixed and _has_width(kind)
    if not fixed and version < (2, 2):
        raise UnsupportedError(
            f"column {field.name!r}: packed structs with members of variable width or lists need file format 2.2"
        )


def _has_width(kind: Any) -> bool:
    try:
        return bool(kind.bit_width)
    except ValueError:
        return False


def accepts(field: Field, kind: Any) -> bool:
    """Whether arrays of an Arrow type can be written to a field."""
    stored = field.arrow_type
    if kind.equals(stored):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        if field.logical_type == "json" and is_json_text(kind):
            return True
        return accepts(field, kind.storage_type)
    types = pa.types
    if types.is_struct(kind):
        if field.is_packed and any(child.logical_type == "json" for child in field.children):
            return False  # its members are stored as they are
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return (
            types.is_struct(stored)
            and names == [child.name for child in field.children]
            and all(accepts(child, kind.field(i).type) for i, child in enumerate(field.children))
        )
    if types.is_map(kind):
        if not types.is_map(stored):
            return False
        key, item = field.children[0].children
        return accepts(key, kind.key_type) and accepts(item, kind.item_type)
    if (
        types.is_list(kind)
        or types.is_large_list(kind)
        or (field.children and types.is_fixed_size_list(kind))
    ):
        same = kind.id == stored.id and (
            not types.is_fixed_size_list(kind) or kind.list_size == stored.list_size
        )
        return same and accepts(field.children[0], kind.value_type)
    try:
        return bool(arrow_type_of(logical_type_of(kind)).equals(stored))
    except (InvalidInputError, UnsupportedError):
        return False
