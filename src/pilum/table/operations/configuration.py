"""Operations on what surrounds the rows: config and metadata, fragment ids, base paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from pilum.errors import InvalidInputError
from pilum.schema import Field, Schema
from pilum.table.model import BasePath, Manifest
from pilum.table.operations.base import Operation

__all__ = ["ReserveFragments", "UpdateBases", "UpdateConfig", "UpdateMap"]

# Primary and clustering keys cannot be changed once they are set.
_KEYS = "lance-schema:unenforced-"


@dataclass(frozen=True, slots=True)
class UpdateMap:
    """A change to a map of strings.

    Attributes:
        entries: key -> new value, None to delete the key.
        replace: whether the map is emptied first.
    """

    entries: Mapping[str, str | None] = field(default_factory=dict)
    replace: bool = False

    def apply(self, current: Mapping[str, str]) -> dict[str, str]:
        """The map afterwards."""
        result = {} if self.replace else dict(current)
        for key, value in self.entries.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = value
        return result

    def overlaps(self, other: UpdateMap) -> bool:
        """Whether both decide about the same key."""
        return self.replace or other.replace or not self.entries.keys().isdisjoint(other.entries)


@dataclass(frozen=True, slots=True)
class UpdateConfig(Operation):
    """Change the table config and the metadata of table, schema and fields; None leaves a map alone.

    Attributes:
        config: table config.
        table_metadata: free metadata of the user.
        schema_metadata: Arrow schema metadata.
        field_metadata: field id -> change of its metadata.
    """

    kind: ClassVar[str] = "update_config"

    config: UpdateMap | None = None
    table_metadata: UpdateMap | None = None
    schema_metadata: UpdateMap | None = None
    field_metadata: Mapping[int, UpdateMap] = field(default_factory=dict)

    @property
    def touches_schema(self) -> bool:
        """Whether it changes metadata that lies in the schema."""
        return self.schema_metadata is not None or bool(self.field_metadata)

    def scope(self, manifest: Manifest) -> frozenset[int]:
        """No fragment: those that are there stay as they are."""
        return frozenset()

    def apply(self, manifest: Manifest) -> Manifest:
        """Apply the four maps."""
        schema = manifest.schema
        if self.schema_metadata is not None:
            schema = Schema(schema.fields, self.schema_metadata.apply(schema.metadata))
        if self.field_metadata:
            unknown = self.field_metadata.keys() - {one.id for one in schema.walk()}
            if unknown:
                raise InvalidInputError(
                    f"update of field metadata: no field with id {min(unknown)} in the schema"
                )
            fields = tuple([_with_metadata(one, self.field_metadata) for one in schema.fields])
            schema = Schema(fields, schema.metadata)
        return replace(
            manifest,
            schema=schema,
            config=manifest.config if self.config is None else self.config.apply(manifest.config),
            table_metadata=manifest.table_metadata
            if self.table_metadata is None
            else self.table_metadata.apply(manifest.table_metadata),
        )


def _with_metadata(one: Field, changes: Mapping[int, UpdateMap]) -> Field:
    children = tuple([_with_metadata(child, changes) for child in one.children])
    change = changes.get(one.id)
    metadata = one.metadata if change is None else change.apply(one.metadata)
    for key, value in one.metadata.items():
        if key.startswith(_KEYS) and metadata.get(key) != value:
            raise InvalidInputError(f"field {one.name!r}: {key} is set to {value!r} and cannot be changed")
    return Field(one.id, one.name, one.logical_type, one.nullable, metadata, children, one.parent_id)


@dataclass(frozen=True, slots=True)
class ReserveFragments(Operation):
    """Set fragment ids aside for a later commit: the last ``num_fragments`` up to the new highest id."""

    kind: ClassVar[str] = "reserve_fragments"

    num_fragments: int

    def scope(self, manifest: Manifest) -> frozenset[int]:
        """No fragment: those that are there stay as they are."""
        return frozenset()

    def apply(self, manifest: Manifest) -> Manifest:
        """Raise the highest id; a table that never had a fragment reserves ids 1 to n, as the reference does."""
        return replace(manifest, max_fragment_id=(manifest.max_fragment_id or 0) + self.num_fragments)


@dataclass(frozen=True, slots=True)
class UpdateBases(Operation):
    """Add base paths.  An id of 0 is assigned by the commit, counting from 1."""

    kind: ClassVar[str] = "update_bases"

    new_bases: tuple[BasePath, ...]

    def scope(self, manifest: Manifest) -> frozenset[int]:
        """No fragment: those that are there stay as they are."""
        return frozenset()

    def apply(self, manifest: Manifest) -> Manifest:
        """Add the bases.

        Raises:
            InvalidInputError: an id, a name or a path is taken.
        """
        bases = list(manifest.base_paths)
        next_id = max([0, *(one.id for one in bases), *(one.id for one in self.new_bases)]) + 1
        for base in self.new_bases:
            for old in bases:
                if old.path == base.path or (base.name is not None and old.name == base.name):
                    raise InvalidInputError(f"base path {base.name or base.path} exists already")
                if base.id and old.id == base.id:
                    raise InvalidInputError(f"base path id {base.id} is taken by {old.path}")
            if base.id == 0:
                base = replace(base, id=next_id)
                next_id += 1
            bases.append(base)
        return replace(manifest, base_paths=tuple(bases))
