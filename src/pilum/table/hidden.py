"""Row ids and row versions that a fragment keeps in columns of its data files (spec/table.md, section 12.6).

    fields of a data file    -3  row ids       -5  version of the last update       -4  version of creation

Loading a version brings them into the fragments, so that everything above knows one form.  A commit on such a version
stores them in the manifest, as writers of the reference do by default; the columns stay in their files, unused.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pilum import arrays
from pilum.errors import CorruptFileError, NotFoundError
from pilum.file.open import open_file
from pilum.io import Store, current_runtime
from pilum.proto.lazy import table_pb2 as pb
from pilum.schema import Field, Schema
from pilum.table import lineage, locations, patching, row_ids
from pilum.table.model import TOMBSTONE, Fragment, Manifest

__all__ = ["hides_any_lineage", "with_hidden_lineage"]

_WINDOW = 16


class _Column(NamedTuple):
    """A hidden column: the message that says so, its field id, and what it stands for."""

    message: Any
    field: int
    attribute: str


_COLUMNS = (
    _Column("row_id_column", -3, "row_ids"),
    _Column("created_at_version_column", -4, "created_at"),
    _Column("last_updated_at_version_column", -5, "last_updated_at"),
)


def hides_any_lineage(manifest: Manifest) -> bool:
    """Whether some fragment keeps row ids or row versions in columns."""
    if not manifest.uses_stable_row_ids:
        return False
    if manifest.pending is not None and manifest.encoded_fragments is not None:
        return patching.any_hidden_lineage(manifest.encoded_fragments)
    return any(map(lineage.hides_lineage, manifest.fragments))


async def with_hidden_lineage(store: Store, manifest: Manifest) -> Manifest:
    """The manifest with what its fragments keep in columns; those whose files are gone stay as they are.

    Raises:
        CorruptFileError: a column is missing, or does not fit its fragment.
    """
    stream = current_runtime().map_ordered(
        lambda fragment: _completed(store, manifest, fragment),
        manifest.fragments,
        window=_WINDOW,
        suspends=store.suspends,
    )
    async with aclosing(stream):
        fragments = tuple([fragment async for fragment in stream])
    return replace(manifest, fragments=fragments)


async def _completed(store: Store, manifest: Manifest, fragment: Fragment) -> Fragment:
    if not lineage.hides_lineage(fragment):
        return fragment
    rest = pb.DataFragment.FromString(fragment.extra)
    found: dict[str, Any] = {}
    for column in _COLUMNS:
        if rest.HasField(column.message):
            try:
                values = await _read(store, manifest, fragment, column)
            except NotFoundError:
                return fragment
            found[column.attribute] = (
                row_ids.encode_row_ids(row_ids.RowIdSequence.of_array(values))
                if column.attribute == "row_ids"
                else lineage.encode_versions(lineage.VersionSequence.of_array(values))
            )
            rest.ClearField(column.message)
    hidden = frozenset(column.field for column in _COLUMNS)
    files = tuple(
        [
            replace(one, fields=tuple([TOMBSTONE if field in hidden else field for field in one.fields]))
            if not hidden.isdisjoint(one.fields)
            else one
            for one in fragment.files
        ]
    )
    return replace(fragment, files=files, extra=rest.SerializeToString(), **found)


async def _read(
    store: Store, manifest: Manifest, fragment: Fragment, column: _Column
) -> npt.NDArray[np.uint64]:
    """The values of a hidden column, one for each physical row."""
    where = f"{store.uri}: fragment {fragment.id}"
    files = [one for one in fragment.files if column.field in one.fields]
    if len(files) != 1:
        raise CorruptFileError(
            f"{where} keeps {column.attribute} in a column, which {len(files)} of its data files have"
        )
    (file,) = files
    location = locations.data_file_location(store.uri, manifest, file)
    wanted = Field(column.field, column.attribute, "uint64", False, {}, (), -1)
    reader = await open_file(
        locations.open_location(store, location.uri),
        location.key,
        size=file.size or None,
        schema=Schema((wanted,), {}),
        fields=file.fields,
        column_indices=file.column_indices,
        version=file.version,
    )
    if reader.num_rows != fragment.physical_rows:
        raise CorruptFileError(
            f"{where} has {fragment.physical_rows} rows, {column.attribute} in {location.key} {reader.num_rows}"
        )
    values = (await reader.read_batch(range(reader.num_rows))).column(0)
    if values.null_count:
        raise CorruptFileError(f"{where}: {column.attribute} in {location.key} holds nulls")
    return arrays.to_numpy(values).astype(np.uint64, copy=False)
