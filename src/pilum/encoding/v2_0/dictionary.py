"""Dictionary: indices beside an array of distinct values (`spec/file-2.0-and-0.1.md`, A.6).

    utf8 (automatic)     index 0 is null, index k is item k - 1
    dict:V:I             index k is item k, a null points to a null item      (0.16: validity on the indices instead)

Every page has its own dictionary.  Its items are read with the first rows that are asked for, in the same round, and
kept by the decoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pilum.encoding.blocks import FixedBlock
from pilum.encoding.page import Rows
from pilum.encoding.v2_0.reads import ArrayDecoder, ArrayRead, Values, join, then
from pilum.encoding.v2_0.values import to_array
from pilum.errors import CorruptFileError

__all__ = ["DictionaryDecoder"]

# Items without any bytes (all null) could be as many as the file likes to claim.
_MAX_EMPTY_ITEMS = 1 << 16


class DictionaryDecoder(ArrayDecoder):
    """Indices into the items of this page.

    Attributes:
        items: their decoder.
        item_type: Arrow type of the items.
        shifted: index 0 is null, as in automatic dictionaries.
    """

    __slots__ = ("indices", "item_type", "items", "kept", "shifted")

    def __init__(self, indices: ArrayDecoder, items: ArrayDecoder, item_type: Any, shifted: bool) -> None:
        self.indices, self.items = indices, items
        self.item_type, self.shifted = item_type, shifted
        self.count = indices.count
        self.kept: Any = None
        if items.count > _MAX_EMPTY_ITEMS and not items.schedule(range(items.count)).ranges:
            raise CorruptFileError(f"a dictionary of {items.count} nulls")

    def schedule(self, rows: Rows) -> ArrayRead:
        indices = self.indices.schedule(rows)
        if self.kept is not None:
            return then(indices, lambda values: self._look_up(values, self.kept))
        items = self.items.schedule(range(self.items.count))
        return join([indices, items], lambda parts: self._look_up(parts[0], self._keep(parts[1])))

    def _keep(self, items: Values) -> Any:
        array = to_array(items, self.item_type)
        if self.shifted:
            array = pa.concat_arrays([pa.nulls(1, array.type), array])
        self.kept = array
        return array

    def _look_up(self, indices: Values, items: Any) -> Values:
        block = indices.block
        if isinstance(block, FixedBlock):
            words = block.words()
            if indices.validity is not None:
                words = np.where(indices.validity, words, words.dtype.type(0))
                block = FixedBlock(block.bits, words.view(np.uint8), block.count)
            if len(words) and int(words.max()) >= len(items) and (len(items) or indices.validity is None):
                raise CorruptFileError(
                    f"dictionary index {int(words.max())}, the dictionary has {len(items)} items"
                )
        return Values(block, indices.validity, items)
