"""Fragments as JSON, in the form of the reference: for writers that prepare files elsewhere and commit once."""

from __future__ import annotations

import json
from typing import Any

from pilum.errors import InvalidInputError
from pilum.table.model import ARROW_ARRAY, BITMAP, DataFile, DeletionFile, Fragment

__all__ = ["fragment_from_json", "fragment_to_json"]

_TYPES = {ARROW_ARRAY: "array", BITMAP: "bitmap"}


def fragment_to_json(fragment: Fragment) -> dict[str, Any]:
    """The fragment as values that `json.dumps` takes."""
    deletion = fragment.deletion_file
    return {
        "id": fragment.id,
        "files": [
            {
                "path": file.path,
                "fields": list(file.fields),
                "column_indices": list(file.column_indices),
                "file_major_version": file.version[0],
                "file_minor_version": file.version[1],
                "file_size_bytes": file.size or None,
                "base_id": file.base_id,
            }
            for file in fragment.files
        ],
        "overlays": [],
        "physical_rows": fragment.physical_rows or None,
        "deletion_file": None
        if deletion is None
        else {
            "read_version": deletion.read_version,
            "id": deletion.id,
            "file_type": _TYPES[deletion.file_type],
            "num_deleted_rows": deletion.num_deleted_rows or None,
            "base_id": deletion.base_id,
        },
        "row_id_meta": _sequence(fragment.row_ids, "Inline"),
        "created_at_version_meta": _sequence(fragment.created_at, "inline"),
        "last_updated_at_version_meta": _sequence(fragment.last_updated_at, "inline"),
    }


def _sequence(data: bytes | None, key: str) -> dict[str, list[int]] | None:
    return None if data is None else {key: list(data)}


def fragment_from_json(values: str | bytes | dict[str, Any]) -> Fragment:
    """The fragment that JSON text, or the values in it, describe.

    Raises:
        InvalidInputError: they do not describe one.
    """
    try:
        if isinstance(values, str | bytes):
            values = json.loads(values)
        assert isinstance(values, dict)
        if values.get("overlays"):
            raise InvalidInputError("a fragment with data overlays, which pilum cannot commit")
        return Fragment(
            _number(values["id"]),
            tuple([_data_file(one) for one in values["files"]]),
            _number(values.get("physical_rows") or 0),
            _deletion_file(values.get("deletion_file")),
            _inline(values.get("row_id_meta")),
            _inline(values.get("created_at_version_meta")),
            _inline(values.get("last_updated_at_version_meta")),
        )
    except InvalidInputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InvalidInputError(
            f"this does not describe a fragment: {type(error).__name__} {error}"
        ) from error


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} instead of a number")
    return value


def _data_file(values: dict[str, Any]) -> DataFile:
    base = values.get("base_id")
    return DataFile(
        str(values["path"]),
        tuple([int(one) for one in values["fields"]]),
        tuple([int(one) for one in values.get("column_indices") or ()]),
        (_number(values.get("file_major_version", 0)), _number(values.get("file_minor_version", 0))),
        _number(values.get("file_size_bytes") or 0),
        None if base is None else _number(base),
    )


def _deletion_file(values: dict[str, Any] | None) -> DeletionFile | None:
    if values is None:
        return None
    types = {name: number for number, name in _TYPES.items()}
    base = values.get("base_id")
    return DeletionFile(
        types[values["file_type"]],
        _number(values["read_version"]),
        _number(values["id"]),
        _number(values.get("num_deleted_rows") or 0),
        None if base is None else _number(base),
    )


def _inline(values: dict[str, Any] | None) -> bytes | None:
    if values is None:
        return None
    ((kind, data),) = values.items()
    if kind.lower() != "inline":
        raise ValueError(f"a sequence that is stored {kind!r}")
    return bytes(data)
