"""Changing a long list of fragments that is not decoded.

A table of 100,000 fragments takes 0.3 s and 100 MB to decode, and most commits touch a few of them.  The list is in
order of the ids, so those few are found by bisection, decoded and changed; the rest stays bytes.

Where a list is not in order, or an id is missing, the answer is None and the caller decodes everything, which then
says what is wrong.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pilum.errors import CorruptFileError
from pilum.proto.lazy import wire
from pilum.table.fragment_codec import PackedNumbers, decode_fragments, encode_fragment
from pilum.table.model import Fragment
from pilum.table.views import views

__all__ = ["EncodedList", "any_deletions", "any_hidden_lineage", "file_shapes"]


@dataclass(frozen=True, slots=True)
class EncodedList:
    """An encoded list of fragments, some of which were looked at.

    Attributes:
        encoded: the whole list, in order of the ids.
        positions: where the chosen fragments are.
        chosen: the chosen fragments.
    """

    encoded: Sequence[bytes]
    positions: tuple[int, ...]
    chosen: tuple[Fragment, ...]

    @classmethod
    def select(cls, encoded: Sequence[bytes], ids: Collection[int], where: str) -> EncodedList | None:
        """Look up fragments by their ids; None when one is not found.

        Raises:
            CorruptFileError: one cannot be decoded.
        """
        positions = []
        for one in sorted(ids):
            at = bisect.bisect_left(encoded, one, key=_id_of)
            if at == len(encoded) or _id_of(encoded[at]) != one:
                return None
            positions.append(at)
        return cls(encoded, tuple(positions), decode_fragments([encoded[one] for one in positions], where))

    def unseen(self) -> list[int]:
        """Ids of the fragments that were not chosen."""
        chosen = {one.id for one in self.chosen}
        return [one.id for one in _glances(self.encoded) if one.id not in chosen]

    def patched(self, result: Sequence[Fragment]) -> list[bytes] | None:
        """The list after a change; None when new fragments do not belong behind the others.

        Args:
            result: what became of the chosen fragments, in order of the ids, and new ones.
        """
        by_id = {one.id: one for one in result}
        changed = list(self.encoded)
        for at, before in zip(reversed(self.positions), reversed(self.chosen), strict=True):
            after = by_id.pop(before.id, None)
            if after is None:
                del changed[at]
            elif after is not before:
                changed[at] = encode_fragment(after)
        added = [one for one in result if one.id in by_id]
        if added and self.encoded and added[0].id <= _id_of(self.encoded[-1]):
            return None
        return changed + [encode_fragment(one) for one in added]


def _id_of(encoded: bytes) -> int:
    try:
        return views().fragment_id.FromString(encoded).id  # type: ignore[no-any-return]
    except wire.DecodeError as error:
        raise CorruptFileError(f"a fragment cannot be decoded: {error}") from error


def _glances(encoded: Sequence[bytes]) -> Any:
    """The fragments as far as `FragmentId` of `views` reads them."""
    kinds = views()
    try:
        data = kinds.split_manifest(fragments=encoded).SerializeToString()
        return kinds.fragment_ids.FromString(data).fragments
    except wire.DecodeError as error:
        raise CorruptFileError(f"a fragment cannot be decoded: {error}") from error


def any_deletions(encoded: Sequence[bytes]) -> bool:
    """Whether some fragment has a deletion file."""
    return any(one.deletion_file for one in _glances(encoded))


def any_hidden_lineage(encoded: Sequence[bytes]) -> bool:
    """Whether some fragment keeps row ids or row versions in hidden columns."""
    return any(
        one.HasField("hidden_ids") or one.HasField("hidden_updated") or one.HasField("hidden_created")
        for one in _glances(encoded)
    )


def file_shapes(encoded: Sequence[bytes]) -> set[tuple[int, ...]]:
    """The different lists of field ids that data files have."""
    kinds = views()
    try:
        data = kinds.split_manifest(fragments=encoded).SerializeToString()
        packed = {file.fields for one in kinds.fragments.FromString(data).fragments for file in one.files}
        numbers = PackedNumbers()
        return {numbers[one] for one in packed}
    except wire.DecodeError as error:
        raise CorruptFileError(f"a fragment cannot be decoded: {error}") from error
