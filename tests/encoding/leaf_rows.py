"""Random leaf rows: levels shredded by the rules of the specification, and values to go with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from pilum.encoding import levels
from pilum.encoding.blocks import Block, FixedBlock, FslBlock, VariableBlock, pack_bits
from pilum.encoding.page import LeafRows

FLAT_LAYERS = [(1,), (3,), (1, 3), (3, 3)]
LIST_LAYERS = [(3, 6), (1, 2), (3, 4), (1, 5), (3, 1, 6, 3), (3, 6, 6), (1, 6, 4, 3, 5)]
BLOCKS = ["bits1", "bits8", "bits16", "bits24", "bits32", "bits64", "bits128", "small64"]
BLOCKS += ["text32", "text64", "empty32", "fsl", "fsl_validity", "fsl_nested"]


def shred(rng: Any, layers: tuple[int, ...], rows: int) -> tuple[Any, Any]:
    """Random (rep, def) entries of some rows (section 5.2)."""
    numbers = levels.level_numbers(layers)
    top = levels.max_rep(layers)
    entries: list[tuple[int, int]] = []

    def emit(layer: int, lists: int, rep: int) -> None:
        if layer < 0:
            entries.append((rep, 0))
            return
        null, empty = numbers[layer]
        draw = rng.random()
        if null and draw < 0.2:
            entries.append((rep, null))
        elif empty and 0.2 <= draw < 0.4:
            entries.append((rep, empty))
        elif layers[layer] in levels.LIST_KINDS:
            for child in range(int(rng.integers(1, 5))):
                emit(layer - 1, lists - 1, rep if child == 0 else lists - 1)
        else:
            emit(layer - 1, lists, rep)

    for _ in range(rows):
        emit(len(layers) - 1, top, top)
    table = np.array(entries, np.uint16).reshape(-1, 2)
    return (table[:, 0].copy() if top else None), table[:, 1].copy()


def random_block(rng: Any, kind: str, count: int) -> Block:
    if kind.startswith("bits"):
        bits = int(kind[4:])
        return FixedBlock(bits, rng.integers(0, 256, (count * bits + 7) // 8, np.uint8), count)
    if kind == "small64":
        return FixedBlock(64, rng.integers(0, 9, count).astype("<u8").view(np.uint8), count)
    if kind.startswith(("text", "empty")):
        sizes = rng.integers(0, 12, count) if kind.startswith("text") else np.zeros(count, np.int64)
        dtype = np.int32 if kind.endswith("32") else np.int64
        offsets = np.zeros(count + 1, dtype)
        np.cumsum(sizes, out=offsets[1:])
        data = rng.integers(97, 123, int(offsets[-1]), np.uint8)
        return VariableBlock(int(kind[-2:]), offsets, data, count)
    dimension = int(rng.integers(1, 6))
    inner = 2 if kind == "fsl_nested" else 1
    child: Block = random_block(rng, "bits32", count * dimension * inner)
    if kind == "fsl_nested":
        child = FslBlock(inner, pack_bits(rng.random(child.count) < 0.7), child, count * dimension)
    validity = None if kind == "fsl" else pack_bits(rng.random(count * dimension) < 0.7)
    return FslBlock(dimension, validity, child, count)


def random_rows(rng: Any, layers: tuple[int, ...], kind: str, rows: int) -> LeafRows:
    rep, definition = shred(rng, layers, rows)
    visible = levels.count_visible(definition, layers, len(definition))
    return LeafRows(random_block(rng, kind, visible), rep, definition, layers, rows)


@st.composite
def leaf_rows(draw: Any, layers: list[tuple[int, ...]], most: int = 3000) -> LeafRows:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.one_of(st.integers(1, 20), st.integers(1, most)))
    chosen = draw(st.sampled_from(layers))
    kind = draw(st.sampled_from(BLOCKS))
    while True:  # a page needs a value
        found = random_rows(rng, chosen, kind, rows)
        if found.block.count:
            return found
