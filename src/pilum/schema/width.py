"""How many bytes a row takes when decoded: an estimate from the types alone (`spec/read-path.md`, section 5.3).

Fixed-width types are exact; strings and binary count as 64 bytes, lists and maps as five items.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

__all__ = ["bytes_per_row"]


def bytes_per_row(schema: Any) -> float:
    """Estimated decoded bytes per row of a `pa.Schema`; at least a little, so that one may divide by it."""
    return sum(_width(field.type) for field in schema) or 1.0


def _width(arrow_type: Any) -> float:
    types = pa.types
    if isinstance(arrow_type, pa.BaseExtensionType):
        return _width(arrow_type.storage_type)
    if types.is_fixed_size_list(arrow_type):
        return float(arrow_type.list_size * _width(arrow_type.value_type))
    if types.is_struct(arrow_type):
        return sum(_width(arrow_type.field(i).type) for i in range(arrow_type.num_fields))
    if types.is_list(arrow_type) or types.is_large_list(arrow_type):
        return 5 * _width(arrow_type.value_type)
    if types.is_map(arrow_type):
        return 5 * (_width(arrow_type.key_type) + _width(arrow_type.item_type))
    try:
        return float(arrow_type.bit_width / 8)
    except ValueError:
        return 64.0
