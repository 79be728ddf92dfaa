"""The schema with field ids, as users of Lance know it (spec/api.md, section 8).

`LanceSchema` shows what an Arrow schema cannot: the id and logical type of every field, and which columns form
the unenforced primary and clustering keys.  It is a thin face of `pilum.schema.Schema`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pilum.errors import InvalidInputError
from pilum.schema import Field, Schema

__all__ = ["LanceField", "LanceSchema", "schema_of"]

_PRIMARY = "lance-schema:unenforced-primary-key"
_CLUSTERING = "lance-schema:unenforced-clustering-key"


class LanceField:
    """A column, or a field below one."""

    __slots__ = ("_stored",)

    def __init__(self, stored: Field) -> None:
        self._stored = stored

    def id(self) -> int:
        """Field id, unique in the schema."""
        return self._stored.id

    def name(self) -> str:
        """Name of the field."""
        return self._stored.name

    def logical_type(self) -> str:
        """Logical type as the format spells it, such as ``"fixed_size_list:float:128"``."""
        return self._stored.logical_type

    def children(self) -> list[LanceField]:
        """Fields below a struct, list or map."""
        return [LanceField(one) for one in self._stored.children]

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the field."""
        return dict(self._stored.metadata)

    def is_unenforced_primary_key(self) -> bool:
        """Whether the field belongs to the primary key."""
        return _position(self._stored.metadata, _PRIMARY) is not None

    def unenforced_primary_key_position(self) -> int | None:
        """Place in the primary key, None outside of it."""
        return _position(self._stored.metadata, _PRIMARY)

    def is_unenforced_clustering_key(self) -> bool:
        """Whether the field belongs to the clustering key."""
        return _position(self._stored.metadata, _CLUSTERING) is not None

    def unenforced_clustering_key_position(self) -> int | None:
        """Place in the clustering key, None outside of it."""
        return _position(self._stored.metadata, _CLUSTERING)

    def to_arrow(self) -> pa.Field:
        """The field in an Arrow schema."""
        return self._stored.to_arrow()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LanceField) and self._stored == other._stored

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        stored = self._stored
        return (
            f"Field(id={stored.id}, name={stored.name!r}, logical_type={stored.logical_type!r}, "
            f"nullable={stored.nullable}, children={self.children()})"
        )


def _position(metadata: Mapping[str, str], key: str) -> int | None:
    text = metadata.get(f"{key}:position")
    if text is not None and text.isdigit():
        return int(text) or None
    return 0 if metadata.get(key, "").lower() in ("true", "1", "yes") else None


class LanceSchema:
    """A schema with field ids; immutable."""

    __slots__ = ("_stored",)

    def __init__(self, stored: Schema) -> None:
        self._stored = stored

    @staticmethod
    def from_pyarrow(schema: pa.Schema) -> LanceSchema:
        """Give ids to the fields of an Arrow schema, counting from 0."""
        return LanceSchema(Schema.from_arrow(schema))

    def to_pyarrow(self) -> pa.Schema:
        """The schema without ids."""
        return self._stored.to_arrow()

    def fields(self) -> list[LanceField]:
        """The columns."""
        return [LanceField(one) for one in self._stored.fields]

    def field(self, name: str) -> LanceField | None:
        """A field by its path (``st.x``), None when there is none."""
        try:
            return LanceField(self._stored.field(name))
        except (InvalidInputError, KeyError):
            return None

    def field_case_insensitive(self, name: str) -> LanceField | None:
        """A field by its path; an exact match is preferred to one in other case.

        Raises:
            InvalidInputError: several fields differ from the name only in case.
        """
        exact = self.field(name)
        if exact is not None:
            return exact
        found: list[Field] = list(self._stored.fields)
        chosen: Field | None = None
        for part in name.split("."):
            matches = [one for one in found if one.name.lower() == part.lower()]
            matches = [one for one in matches if one.name == part] or matches
            if len(matches) > 1:
                raise InvalidInputError(
                    f"field {name!r} is ambiguous: {', '.join(one.name for one in matches)}"
                )
            if not matches:
                return None
            chosen = matches[0]
            found = list(chosen.children)
        return None if chosen is None else LanceField(chosen)

    def unenforced_primary_key(self) -> list[LanceField]:
        """The fields of the primary key in its order; empty without one."""
        return self._key(_PRIMARY)

    def unenforced_clustering_key(self) -> list[LanceField]:
        """The fields of the clustering key in its order; empty without one."""
        return self._key(_CLUSTERING)

    def _key(self, key: str) -> list[LanceField]:
        found = [
            (position, one.id, one)
            for one in self._stored.walk()
            if (position := _position(one.metadata, key)) is not None
        ]
        # Fields with a place come first, then those that were only marked, in the order of their ids.
        found.sort(key=lambda entry: (entry[0] == 0, entry[0], entry[1]))
        return [LanceField(one) for _, _, one in found]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LanceSchema) and self._stored == other._stored

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return LanceSchema, (self._stored,)

    def __repr__(self) -> str:
        return f"LanceSchema(fields={self.fields()}, metadata={dict(self._stored.metadata)})"


def schema_of(given: LanceSchema | Schema | pa.Schema) -> Schema:
    """The stored form of a schema that a user hands over.

    Raises:
        TypeError: it is not a schema.
    """
    if isinstance(given, LanceSchema):
        return given._stored
    if isinstance(given, Schema):
        return given
    if isinstance(given, pa.Schema):
        return Schema.from_arrow(given)
    raise TypeError(f"expected a LanceSchema or a pyarrow Schema, got {type(given).__name__}")
