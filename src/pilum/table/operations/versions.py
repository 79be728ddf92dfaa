"""Operations that take the content of another version: restore, clone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from pilum.errors import InvalidInputError
from pilum.proto.lazy import table_pb2 as pb
from pilum.table.indices import edit_index
from pilum.table.model import BasePath, DataFile, Fragment, IndexMetadata, Manifest
from pilum.table.operations.base import Operation

__all__ = ["Clone", "Restore"]


@dataclass(frozen=True, slots=True)
class Restore(Operation):
    """Make an old version the newest one.

    Attributes:
        version: which.
        content: its manifest; the commit loads it.
    """

    kind: ClassVar[str] = "restore"

    version: int
    content: Manifest | None = field(default=None, repr=False, compare=False)

    def apply(self, manifest: Manifest) -> Manifest:
        """The old content; the counters of ids never go back."""
        content = self.content
        if content is None:
            raise InvalidInputError(f"restore: version {self.version} has not been loaded")
        highest = [one for one in (content.max_fragment_id, manifest.max_fragment_id) if one is not None]
        return replace(
            content,
            version=manifest.version,
            max_fragment_id=max(highest, default=None),
            next_row_id=max(content.next_row_id, manifest.next_row_id),
        )


@dataclass(frozen=True, slots=True)
class Clone(Operation):
    """Make a new table, or a branch, out of a version of a table (section 13.3).

    Attributes:
        is_shallow: whether the files stay where they are; else they have been copied.
        ref_name: branch of the source, None for main.
        ref_version: version of the source, and of the clone.
        ref_path: where the source is.
        branch_name: name of the branch that is made, None for a table of its own.
        content: manifest of the source; the commit needs it, the transaction does not carry it.
    """

    kind: ClassVar[str] = "clone"

    is_shallow: bool
    ref_name: str | None
    ref_version: int
    ref_path: str
    branch_name: str | None = None
    content: Manifest | None = field(default=None, repr=False, compare=False)

    def apply(self, manifest: Manifest) -> Manifest:
        """The content of the source, its files referred to through a new base path."""
        content = self.content
        if content is None:
            raise InvalidInputError(
                f"clone: version {self.ref_version} of {self.ref_path} has not been loaded"
            )
        if not self.is_shallow:
            fragments, indices = _based(content, None, everywhere=True)
            return replace(
                content, fragments=fragments, indices=indices, base_paths=(), branch=self.branch_name
            )
        taken = {one.id for one in content.base_paths}
        base_id = next(number for number in range(len(taken) + 1) if number not in taken)
        base = BasePath(base_id, self.ref_path, is_dataset_root=True, name=self.ref_name)
        fragments, indices = _based(content, base_id, everywhere=False)
        return replace(
            content,
            fragments=fragments,
            indices=indices,
            base_paths=(*content.base_paths, base),
            branch=self.branch_name,
        )


def _based(
    content: Manifest, base_id: int | None, *, everywhere: bool
) -> tuple[tuple[Fragment, ...], tuple[IndexMetadata, ...]]:
    """Fragments and indices with their files in a base; ``everywhere`` also those that already have one."""

    def of_file(file: DataFile) -> DataFile:
        return replace(file, base_id=base_id) if everywhere or file.base_id is None else file

    def of_fragment(fragment: Fragment) -> Fragment:
        deletion = fragment.deletion_file
        if deletion is not None and (everywhere or deletion.base_id is None):
            deletion = replace(deletion, base_id=base_id)
        return replace(
            fragment, files=tuple([of_file(file) for file in fragment.files]), deletion_file=deletion
        )

    def of_index(message: pb.IndexMetadata) -> None:
        if everywhere or not message.HasField("base_id"):
            message.ClearField("base_id")
            if base_id is not None:
                message.base_id = base_id

    fragments = tuple([of_fragment(one) for one in content.fragments])
    return fragments, tuple([edit_index(one, of_index) for one in content.indices])
