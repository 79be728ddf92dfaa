"""Column trees: how reads are joined over rounds, pages and columns, and what lists and structs check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum.encoding.v2_0.columns import BlobColumn, LeafColumn, ListColumn, ListPage, NullColumn, StructColumn
from pilum.encoding.v2_0.ends import schedule_ends
from pilum.encoding.v2_0.flat import FlatDecoder, read_spans
from pilum.encoding.v2_0.reads import ArrayRead, done, join, plan_runs, then
from pilum.errors import CorruptFileError


def run(read: Any, data: bytes) -> tuple[Any, int]:
    """The value of a read and how many rounds it took."""
    source = np.frombuffer(data, np.uint8)
    rounds = 0
    while isinstance(read, ArrayRead):
        read = read.decode([source[low:high] for low, high in read.ranges])
        rounds += 1
    return read, rounds


def lists(ends: list[list[int]], items: int, adjustment: int) -> tuple[ListColumn, bytes]:
    """List pages of the given ends over one page of int8 items 0, 1, 2, …"""
    data = bytes(range(items))
    child = LeafColumn([FlatDecoder(8, (0, items), items)], pa.int8())
    pages = []
    for page in ends:
        raw = np.array(page, np.uint64).tobytes()
        decoder = FlatDecoder(64, (len(data), len(data) + len(raw)), len(page))
        data += raw
        count = page[-1] % adjustment
        pages.append(
            ListPage(
                len(page),
                count,
                lambda rows, decoder=decoder, count=count: schedule_ends(
                    decoder, rows, adjustment, count, wrap=True
                ),
            )
        )
    return ListColumn(pages, child, pa.list_(pa.int8())), data


def test_join_fetches_what_all_parts_lack() -> None:
    def later(at: int) -> ArrayRead:
        return ArrayRead([(0, 1)], lambda buffers: ArrayRead([(at, at + 1)], lambda found: int(found[0][0])))

    read = join([later(1), done(7), later(2)], sum)
    assert run(read, bytes([9, 20, 30])) == (57, 2)
    assert run(then(join([later(1)], lambda one: one[0]), lambda value: value * 2), bytes([9, 20])) == (40, 2)


def test_runs() -> None:
    rows = np.array([1, 2, 5, 100, 101, 300])
    starts, stops, picks = plan_runs(rows, 10)
    assert (starts, stops) == ([1, 100, 300], [6, 102, 301])
    fetched = np.concatenate([np.arange(a, b) for a, b in zip(starts, stops, strict=True)])
    assert fetched[picks].tolist() == rows.tolist()
    assert plan_runs(np.array([4, 5]), 0) == ([4], [6], None)


@pytest.mark.parametrize("seed", range(20))
def test_spans_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, 100_000).astype(np.uint8)
    count = int(rng.integers(1, 40))
    starts = rng.integers(0, 90_000, count)
    sizes = rng.integers(0, 3000, count)
    if seed % 2:
        starts.sort()
    found, _ = run(read_spans(starts, sizes), data.tobytes())
    expected = [data[a : a + n] for a, n in zip(starts, sizes, strict=True)]
    assert found.tobytes() == np.concatenate(expected).tobytes()


def test_lists_over_pages_with_nulls_that_own_items() -> None:
    # [0 1] [2] | null(3 4) [5] | [] [6 7 8]
    column, data = lists([[2, 3], [2 + 100, 3], [0, 3]], 9, 100)
    expected = [[0, 1], [2], None, [5], [], [6, 7, 8]]
    found, rounds = run(column.schedule(range(6)), data)
    assert found.to_pylist() == expected
    assert rounds == 1
    for low in range(6):
        for high in range(low + 1, 7):
            assert run(column.schedule(range(low, high)), data)[0].to_pylist() == expected[low:high]
    found, rounds = run(column.schedule(np.array([1, 3, 5])), data)
    assert found.to_pylist() == [[2], [5], [6, 7, 8]]
    assert rounds == 2
    assert run(column.schedule(range(0)), data)[0].to_pylist() == []


@pytest.mark.fault
def test_lists_that_contradict_their_items() -> None:
    with pytest.raises(CorruptFileError, match="items"):
        lists([[5]], 4, 100)
    column, data = lists([[3, 2, 4]], 4, 100)
    with pytest.raises(CorruptFileError, match=r"decrease.*page 0"):
        run(column.schedule(range(3)), data)


def test_structs() -> None:
    member = LeafColumn([FlatDecoder(8, (0, 2), 2), FlatDecoder(8, (2, 3), 1)], pa.int8())
    kind = pa.struct([("a", pa.int8()), ("b", pa.string())])
    column = StructColumn(3, [member, NullColumn(3, pa.string())], kind)
    found, _ = run(column.schedule(np.array([0, 2])), bytes([4, 5, 6]))
    assert found.to_pylist() == [{"a": 4, "b": None}, {"a": 6, "b": None}]
    empty = StructColumn(3, [], pa.struct([]))
    assert run(empty.schedule(range(3)), b"")[0].to_pylist() == [{}, {}, {}]
    with pytest.raises(CorruptFileError, match="member of 3 rows"):
        StructColumn(4, [member], pa.struct([("a", pa.int8())]))


def blobs(rows: list[tuple[int, int]], size: int, kind: Any = None) -> BlobColumn:
    descriptor = pa.struct([("position", pa.uint64()), ("size", pa.uint64())])
    pages = LeafColumn([FlatDecoder(128, (size, size + 16 * len(rows)), len(rows))], descriptor)
    return BlobColumn(pages, kind or pa.large_binary(), size)


def test_blobs_in_any_order() -> None:
    rows = [(4, 2), (1, 0), (0, 0), (0, 3)]
    data = b"abcdef" + np.array(rows, np.uint64).tobytes()
    found, rounds = run(blobs(rows, 6).schedule(range(4)), data)
    assert found.to_pylist() == [b"ef", None, b"", b"abc"]
    assert rounds == 2
    kind = pa.struct([("position", pa.uint64()), ("size", pa.uint64())])
    found, _ = run(blobs(rows, 6, kind).schedule(range(4)), data)
    assert [tuple(one.values()) for one in found.to_pylist()] == rows


@pytest.mark.fault
@pytest.mark.parametrize("row", [(5, 2), (1 << 63, 1), (0, 1 << 63), (2**64 - 1, 2)])
def test_blobs_outside_the_file(row: tuple[int, int]) -> None:
    data = b"abcdef" + np.array([row], np.uint64).tobytes()
    with pytest.raises(CorruptFileError, match="outside"):
        run(blobs([row], 6).schedule(range(1)), data)


@pytest.mark.fault
def test_overlapping_blobs_do_not_multiply_the_file() -> None:
    rows = [(0, 6)] * 3
    data = b"abcdef" + np.array(rows, np.uint64).tobytes()
    with pytest.raises(CorruptFileError, match="overlap"):
        run(blobs(rows, 6).schedule(range(3)), data)
