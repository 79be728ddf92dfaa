"""Operations that change columns: merge, project, data replacement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from pilum.errors import InvalidInputError
from pilum.schema import Field, Schema
from pilum.table.indices import retain_indices, without_coverage_of_fields
from pilum.table.lineage import mark_updated
from pilum.table.model import TOMBSTONE, DataFile, Fragment, Manifest
from pilum.table.operations.base import Operation, number_fragments, require_fragments, with_new_fragments
from pilum.table.patching import file_shapes

__all__ = ["DataReplacement", "Merge", "Project", "max_field_id"]


def max_field_id(manifest: Manifest) -> int:
    """The highest field id that the schema or a data file still names; -1 without any.

    New columns count up from there, so that a dropped column whose values are still in a file never comes
    back under another name (section 10.1).
    """
    return max([manifest.schema.max_field_id, *(max(fields, default=-1) for fields in _shapes(manifest))])


def _shapes(manifest: Manifest) -> set[tuple[int, ...]]:
    """The different lists of field ids that the data files have."""
    encoded = manifest.encoded_fragments
    if encoded is not None and manifest.pending is not None:
        return file_shapes(encoded)
    return {file.fields for fragment in manifest.fragments for file in fragment.files}


@dataclass(frozen=True, slots=True)
class Merge(Operation):
    """Replace the schema and the files of all fragments: add or cast columns.

    Attributes:
        fragments: the complete list; every fragment of the table must be there with as many rows.
        schema: the new schema.
        preserves_nullability: that no column which allowed nulls now forbids them.
    """

    kind: ClassVar[str] = "merge"

    fragments: tuple[Fragment, ...]
    schema: Schema
    preserves_nullability: bool = False

    def apply(self, manifest: Manifest) -> Manifest:
        """Take the given fragments and schema; indices lose fragments whose indexed column was rewritten."""
        before = manifest.fragment_by_id()
        given = {fragment.id: fragment for fragment in self.fragments if fragment.id in before}
        for old in manifest.fragments:
            new = given.get(old.id)
            if new is None:
                raise InvalidInputError(f"merge: fragment {old.id} of the table is not in the new list")
            if new.physical_rows != old.physical_rows:
                raise InvalidInputError(
                    f"merge: fragment {old.id} has {old.physical_rows} rows, the new one {new.physical_rows}"
                )
        _check_shared_fields(manifest, self.schema, given)
        changed = {
            one.id: fields
            for one in given.values()
            if one.files != before[one.id].files and (fields := _changed_fields(before[one.id], one))
        }
        if manifest.uses_stable_row_ids:
            given = {
                key: mark_updated(_with_ids_of(one, before[key]), manifest.version)
                if one.files != before[key].files
                else _with_ids_of(one, before[key])
                for key, one in given.items()
            }
        added = number_fragments(manifest, [one for one in self.fragments if one.id not in before])
        schema = Schema(self.schema.fields, self.schema.metadata or manifest.schema.metadata)
        merged = with_new_fragments(replace(manifest, schema=schema), tuple(given.values()), added)
        return retain_indices(without_coverage_of_fields(merged, changed))


def _with_ids_of(fragment: Fragment, before: Fragment) -> Fragment:
    """Row ids and versions do not change with columns; a caller may have left them out."""
    if fragment.row_ids is not None or fragment is before:
        return fragment
    return replace(
        fragment, row_ids=before.row_ids, created_at=before.created_at, last_updated_at=before.last_updated_at
    )


def _changed_fields(before: Fragment, after: Fragment) -> frozenset[int]:
    """Field ids whose file is another one than before."""
    old, new = _file_of_field(before.files), _file_of_field(after.files)
    return frozenset(one for one in old.keys() | new.keys() if old.get(one) != new.get(one))


def _file_of_field(files: Iterable[DataFile]) -> dict[int, tuple[str, int | None]]:
    return {field: (file.path, file.base_id) for file in files for field in file.fields if field >= 0}


def _check_shared_fields(manifest: Manifest, schema: Schema, given: dict[int, Fragment]) -> None:
    """Fields that stay must be the same column, or be rewritten everywhere (section 8)."""
    old = dict(_with_paths(manifest.schema))
    highest = max_field_id(manifest)
    for field_id, (path, field) in _with_paths(schema):
        known = old.get(field_id)
        if known is None:
            if field_id <= highest:
                raise InvalidInputError(
                    f"merge: new column {path} has field id {field_id}, which was used before; new ids begin at "
                    f"{highest + 1}"
                )
            continue
        same = (known[0], known[1].logical_type, known[1].nullable) == (
            path,
            field.logical_type,
            field.nullable,
        )
        if not same and not _rewritten_everywhere(manifest, given, field_id):
            raise InvalidInputError(
                f"merge: column {path} (field id {field_id}) was {known[0]} of type {known[1].logical_type}; a "
                "column that changes needs new files in every fragment"
            )


def _with_paths(schema: Schema) -> Iterable[tuple[int, tuple[str, Field]]]:
    def walk(field: Field, above: str) -> Iterable[tuple[int, tuple[str, Field]]]:
        path = above + field.name
        yield field.id, (path, field)
        for child in field.children:
            yield from walk(child, path + ".")

    for top in schema.fields:
        yield from walk(top, "")


def _rewritten_everywhere(manifest: Manifest, given: dict[int, Fragment], field_id: int) -> bool:
    return all(field_id in _changed_fields(old, given[old.id]) for old in manifest.fragments)


@dataclass(frozen=True, slots=True)
class Project(Operation):
    """Replace the schema without touching data: drop, rename, reorder columns, change nullability.

    Attributes:
        schema: the new schema; its field ids are among those of the table.
        preserves_nullability: that no column which allowed nulls now forbids them.
    """

    kind: ClassVar[str] = "project"

    schema: Schema
    preserves_nullability: bool = False

    def scope(self, manifest: Manifest) -> frozenset[int] | None:
        """No fragment, unless one loses a file."""
        live = {field.id for field in self.schema.walk()}
        if any(live.isdisjoint(fields) for fields in _shapes(manifest)):
            return None
        return frozenset()

    def apply(self, manifest: Manifest) -> Manifest:
        """Take the schema; drop data files without a column that remains."""
        known = {field.id for field in manifest.schema.walk()}
        live = {field.id for field in self.schema.walk()}
        if live - known:
            raise InvalidInputError(f"project: the table has no field with id {min(live - known)}")
        metadata = self.schema.metadata or manifest.schema.metadata
        dead = {fields for fields in _shapes(manifest) if live.isdisjoint(fields)}
        fragments = manifest.fragments
        if dead:
            fragments = tuple([_without_files(one, dead) for one in fragments])
        return retain_indices(
            replace(manifest, schema=Schema(self.schema.fields, metadata), fragments=fragments)
        )


def _without_files(fragment: Fragment, dead: set[tuple[int, ...]]) -> Fragment:
    kept = tuple([file for file in fragment.files if file.fields not in dead])
    if len(kept) == len(fragment.files):
        return fragment
    # A fragment keeps one file even when all its remaining columns are null.
    return replace(fragment, files=kept or fragment.files[:1])


@dataclass(frozen=True, slots=True)
class DataReplacement(Operation):
    """Give columns of some fragments new files, row by row the same rows.

    Attributes:
        replacements: fragment id and its new file; all files list the same fields.
    """

    kind: ClassVar[str] = "data_replacement"

    replacements: tuple[tuple[int, DataFile], ...]

    @property
    def fields(self) -> frozenset[int]:
        """Ids of the replaced fields."""
        return frozenset(field for _, file in self.replacements for field in file.fields if field >= 0)

    def scope(self, manifest: Manifest) -> frozenset[int] | None:
        """The fragments with new files."""
        return frozenset(one for one, _ in self.replacements)

    def apply(self, manifest: Manifest) -> Manifest:
        """Put the files into their fragments; indices on these columns no longer cover them."""
        if len({file.fields for _, file in self.replacements}) > 1:
            raise InvalidInputError("data replacement: all new files must list the same fields")
        require_fragments(manifest, [one for one, _ in self.replacements], "data replacement")
        files = dict(self.replacements)
        if len(files) != len(self.replacements):
            raise InvalidInputError("data replacement: a fragment is named twice")
        fragments = []
        for fragment in manifest.fragments:
            file = files.get(fragment.id)
            if file is not None:
                fragment = replace(fragment, files=replace_file(fragment, file))
                if manifest.uses_stable_row_ids:
                    fragment = mark_updated(fragment, manifest.version)
            fragments.append(fragment)
        changed = replace(manifest, fragments=tuple(fragments))
        fields = self.fields
        return retain_indices(without_coverage_of_fields(changed, dict.fromkeys(files, fields)))


def replace_file(fragment: Fragment, file: DataFile) -> tuple[DataFile, ...]:
    """The files of a fragment after ``file`` took over its fields.

    A file with the very same fields is replaced, otherwise the fields become tombstones in the old files.
    """
    for position, old in enumerate(fragment.files):
        if old.fields == file.fields and old.version == file.version:
            replaced = replace(old, path=file.path, size=file.size, base_id=file.base_id)
            if file.column_indices:
                replaced = replace(replaced, column_indices=file.column_indices)
            return (*fragment.files[:position], replaced, *fragment.files[position + 1 :])
    taken = frozenset(file.fields)
    files = []
    for old in fragment.files:
        if not taken.isdisjoint(old.fields):
            if not old.column_indices:
                raise InvalidInputError(
                    f"data replacement: file {old.path} of format 0.1 cannot lose single columns"
                )
            old = replace(old, fields=tuple([TOMBSTONE if one in taken else one for one in old.fields]))
        files.append(old)
    return (*files, file)
