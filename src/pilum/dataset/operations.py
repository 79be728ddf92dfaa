"""The kinds of changes that users put together: `LanceOperation` (spec/api.md, section 7).

Every operation is a plain value; `pilum.dataset.transactions` turns it into the operation of the table room, which
says what it does to a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pilum.dataset.fragment_metadata import DataFile, FragmentMetadata
from pilum.dataset.index_value import Index
from pilum.dataset.lance_schema import LanceSchema, schema_of
from pilum.errors import InvalidInputError

__all__ = ["UPDATE_MODES", "DatasetBasePath", "LanceOperation"]

# How an update was done: changed rows moved to new fragments, or columns got new files.
UPDATE_MODES = ("rewrite_rows", "rewrite_columns")


@dataclass
class DatasetBasePath:
    """Another place where files of a dataset lie.

    Attributes:
        path: address.
        name: unique among the bases.
        is_dataset_root: whether the place is laid out like a dataset, with a ``data`` folder.
        id: number that files refer to; None lets the commit choose.
    """

    path: str
    name: str | None = None
    is_dataset_root: bool = False
    id: int | None = None


class LanceOperation:
    """The kinds of changes; each is a value that a `Transaction` carries to `LanceDataset.commit`."""

    class BaseOperation:
        """What all operations are.  One that pilum can only carry shows itself as this class."""

    @dataclass
    class Append(BaseOperation):
        """Add fragments.

        Attributes:
            fragments: the new fragments, from `write_fragments` or `LanceFragment.create`.
        """

        fragments: Iterable[FragmentMetadata]

        def __post_init__(self) -> None:
            self.fragments = _fragments(self.fragments)

    @dataclass
    class Delete(BaseOperation):
        """Delete rows.

        Attributes:
            updated_fragments: fragments with their new deletion file, from `LanceFragment.delete`.
            deleted_fragment_ids: fragments that lost all rows.
            predicate: what the rows matched, for the history.
        """

        updated_fragments: Iterable[FragmentMetadata]
        deleted_fragment_ids: Iterable[int]
        predicate: str

        def __post_init__(self) -> None:
            self.updated_fragments = _fragments(self.updated_fragments)
            self.deleted_fragment_ids = list(self.deleted_fragment_ids)

    @dataclass
    class Overwrite(BaseOperation):
        """Replace all rows and the schema, or create a dataset.

        Attributes:
            new_schema: the schema.
            fragments: the rows.
            initial_bases: other places where files lie (creation only).
        """

        new_schema: LanceSchema | pa.Schema
        fragments: Iterable[FragmentMetadata]
        initial_bases: list[DatasetBasePath] | None = None

        def __post_init__(self) -> None:
            self.fragments = _fragments(self.fragments)
            schema_of(self.new_schema)

    @dataclass
    class Restore(BaseOperation):
        """Make an old version the newest one.

        Attributes:
            version: which.
        """

        version: int

    @dataclass
    class Update(BaseOperation):
        """Change rows: move them to new fragments, or give columns new files.

        Attributes:
            removed_fragment_ids: fragments that lost all rows.
            updated_fragments: fragments with a new deletion file or new data files.
            new_fragments: moved and inserted rows.
            fields_modified: ids of fields with new values in the updated fragments.
            fields_for_preserving_frag_bitmap: ids of fields whose values changed in moved rows.
            update_mode: ``"rewrite_rows"``, ``"rewrite_columns"`` or empty (rows).
            updated_fragment_offsets: fragment id -> Roaring bitmap of the rows whose columns changed.
        """

        removed_fragment_ids: list[int] = field(default_factory=list)
        updated_fragments: list[FragmentMetadata] = field(default_factory=list)
        new_fragments: list[FragmentMetadata] = field(default_factory=list)
        fields_modified: list[int] = field(default_factory=list)
        fields_for_preserving_frag_bitmap: list[int] = field(default_factory=list)
        update_mode: str = ""
        updated_fragment_offsets: dict[int, bytes] | None = None

        def __post_init__(self) -> None:
            self.updated_fragments = _fragments(self.updated_fragments)
            self.new_fragments = _fragments(self.new_fragments)
            if self.update_mode not in ("", *UPDATE_MODES):
                raise InvalidInputError(
                    f"update_mode must be rewrite_rows or rewrite_columns, got {self.update_mode!r}"
                )

    @dataclass
    class Merge(BaseOperation):
        """Add or cast columns: every fragment with its files, and the new schema.

        Attributes:
            fragments: all fragments of the dataset.
            schema: the new schema, with the ids of the fields that stay.
            preserves_nullability: that no column which allowed nulls now forbids them.
        """

        fragments: Iterable[FragmentMetadata]
        schema: LanceSchema | pa.Schema
        preserves_nullability: bool = False

        def __post_init__(self) -> None:
            self.fragments = _fragments(self.fragments)
            schema_of(self.schema)

    @dataclass
    class Project(BaseOperation):
        """Drop, rename or reorder columns without touching data.

        Attributes:
            schema: the new schema, with the ids of the fields that stay.
            preserves_nullability: that no column which allowed nulls now forbids them.
        """

        schema: LanceSchema
        preserves_nullability: bool = False

    @dataclass
    class RewriteGroup:
        """Fragments and those that take their place.

        Attributes:
            old_fragments: fragments that go.
            new_fragments: fragments with the same live rows in the same order.
        """

        old_fragments: Iterable[FragmentMetadata]
        new_fragments: Iterable[FragmentMetadata]

        def __post_init__(self) -> None:
            self.old_fragments = _fragments(self.old_fragments)
            self.new_fragments = _fragments(self.new_fragments)

    @dataclass
    class RewrittenIndex:
        """An index segment whose row addresses were translated.

        Attributes:
            old_id, new_id: uuids of the segment before and after.
            new_details_type_url, new_details_value: what kind of index it is.
            new_index_version: layout of the new files.
        """

        old_id: str
        new_id: str
        new_details_type_url: str
        new_details_value: bytes
        new_index_version: int

    @dataclass
    class Rewrite(BaseOperation):
        """Compact fragments.

        Attributes:
            groups: what replaces what.
            rewritten_indices: translated index segments.
        """

        groups: Iterable[LanceOperation.RewriteGroup]
        rewritten_indices: Iterable[LanceOperation.RewrittenIndex]

        def __post_init__(self) -> None:
            self.groups = list(self.groups)
            self.rewritten_indices = list(self.rewritten_indices)

    @dataclass
    class CreateIndex(BaseOperation):
        """Add and remove index entries.

        Attributes:
            new_indices: entries to add.
            removed_indices: entries to remove.
        """

        new_indices: list[Index]
        removed_indices: list[Index]

    @dataclass
    class UpdateMap:
        """A change to a map of strings.

        Attributes:
            updates: key -> new value; None deletes the key.
            replace: whether the map is emptied first.
        """

        updates: dict[str, str | None]
        replace: bool = False

    @dataclass
    class UpdateConfig(BaseOperation):
        """Change config and metadata; None leaves a map alone.

        Attributes:
            config_updates: table config.
            table_metadata_updates: free metadata of the dataset.
            schema_metadata_updates: metadata of the Arrow schema.
            field_metadata_updates: field id -> change of its metadata.
        """

        config_updates: LanceOperation.UpdateMap | None = None
        table_metadata_updates: LanceOperation.UpdateMap | None = None
        schema_metadata_updates: LanceOperation.UpdateMap | None = None
        field_metadata_updates: dict[int, LanceOperation.UpdateMap] | None = None

    @dataclass
    class DataReplacementGroup:
        """A fragment and the new file of some of its columns.

        Attributes:
            fragment_id: the fragment.
            new_file: the file.
        """

        fragment_id: int
        new_file: DataFile

    @dataclass
    class DataReplacement(BaseOperation):
        """Give columns of some fragments new files, row by row the same rows.

        Attributes:
            replacements: one for each fragment; all files hold the same fields.
        """

        replacements: list[LanceOperation.DataReplacementGroup]

    @dataclass
    class Clone(BaseOperation):
        """How a dataset or branch was made from another one; seen in the history only.

        Attributes:
            is_shallow: whether the files stayed where they were.
            ref_name: branch of the source, None for main.
            ref_version: version of the source.
            ref_path: address of the source.
            branch_name: name of the branch that was made.
        """

        is_shallow: bool
        ref_name: str | None
        ref_version: int
        ref_path: str
        branch_name: str | None

    @dataclass
    class DataOverlayFile:
        """Values that lie over those of a data file; not supported in commits."""

        data_file: DataFile
        offsets: Any
        committed_version: int | None = None

    @dataclass
    class DataOverlayGroup:
        """Overlays of a fragment; not supported in commits."""

        fragment_id: int
        overlays: list[LanceOperation.DataOverlayFile]

    @dataclass
    class DataOverlay(BaseOperation):
        """Lay values over data files; not supported in commits."""

        groups: list[LanceOperation.DataOverlayGroup]


def _fragments(given: Any) -> list[FragmentMetadata]:
    fragments = None
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        fragments = list(given)
    wrong = (
        given
        if fragments is None
        else next((x for x in fragments if not isinstance(x, FragmentMetadata)), None)
    )
    if wrong is not None or fragments is None:
        raise TypeError(f"fragments must be list[FragmentMetadata], got {type(wrong)}")
    return fragments
