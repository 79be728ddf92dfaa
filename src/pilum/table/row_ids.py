"""Stable row ids and row lineage of new fragments (spec/table.md, sections 12.2 to 12.4).

Sequences stay encoded in `Fragment`; this module makes those of fresh rows: consecutive ids, and one version
for all rows.
"""

from __future__ import annotations

from dataclasses import replace

from pilum.proto import table_pb2 as pb
from pilum.table.model import Fragment

__all__ = ["assign_row_ids"]


def assign_row_ids(
    fragments: tuple[Fragment, ...], next_row_id: int, version: int
) -> tuple[tuple[Fragment, ...], int]:
    """Give the rows of new fragments their ids and mark them as created in ``version``.

    Returns:
        The fragments and the next unused row id.
    """
    result = []
    for fragment in fragments:
        end = next_row_id + fragment.physical_rows
        row_ids = pb.RowIdSequence()
        # An empty message is written too: the range is a set member of its one-of even when both ends are 0.
        row_ids.segments.add().range.SetInParent()
        row_ids.segments[0].range.start = next_row_id
        row_ids.segments[0].range.end = end
        versions = pb.RowDatasetVersionSequence()
        run = versions.runs.add()
        run.version = version
        run.span.range.SetInParent()
        run.span.range.end = fragment.physical_rows
        lineage = versions.SerializeToString()
        result.append(
            replace(
                fragment, row_ids=row_ids.SerializeToString(), created_at=lineage, last_updated_at=lineage
            )
        )
        next_row_id = end
    return tuple(result), next_row_id
