"""Row-id sequences, their index, and row versions: bytes of the specification, golden tables, generated data."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pilum.errors import CorruptFileError, InvalidInputError, UnsupportedError
from pilum.io import LocalStore, MemoryStore
from pilum.proto import table_pb2 as pb
from pilum.table import Fragment, Manifest, RowIdIndex, latest_version, load_manifest, load_row_id_index
from pilum.table.lineage import (
    VersionSequence,
    adopt_rows,
    assign_row_ids,
    created_versions,
    decode_versions,
    encode_versions,
    fragment_row_ids,
    mark_updated,
    updated_versions,
)
from pilum.table.roaring import encode_roaring
from pilum.table.row_id_index import build_row_id_index, read_row_ids
from pilum.table.row_ids import RowIdSequence, decode_row_ids, encode_row_ids
from tests.support import GOLDEN, expected_table
from tests.table.tables import drive, fragment

TABLES = GOLDEN / "table"
STABLE = ["stable_update", "stable_segments", "stable_compact", "stable_holes"]

# Section 18.3.
EXAMPLES = {
    "0a04 0a02 1006": [0, 1, 2, 3, 4, 5],
    "0a06 0a04 0806 100a": [6, 7, 8, 9],
    "0a09 1a07 0801 1009 1a01 81": [1, 8],
    "0a0a 1a08 0802 100b 1a02 0101": [2, 10],
    "0a13 1211 10e807 1a0c 0a0a 0864 1206 0000 0100 9001": [
        one for one in range(1000) if one not in (100, 101, 500)
    ],
    "0a0c 220a 0a08 1206 0000 d007 c409": [0, 2000, 2500],
    "0a10 2a0e 0a0c 0807 1208 b10b 0000 e103 b70b": [3000, 7, 1000, 3006],
}

# The smallest ones first; then sets with every shape a segment has.
IDS = st.one_of(
    st.lists(st.integers(0, 50), unique=True, max_size=40),
    st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=40),
    st.sets(st.integers(1000, 1200), max_size=150).map(sorted),
    st.sets(st.integers(0, 100_000), max_size=40).map(sorted),
    st.builds(
        lambda first, count: list(range(first, first + count)), st.integers(0, 2**63), st.integers(0, 60)
    ),
)


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_specification(text: str) -> None:
    data = bytes.fromhex(text.replace(" ", ""))
    sequence = decode_row_ids(data, "t")
    assert sequence.to_array().tolist() == EXAMPLES[text]
    assert decode_row_ids(data, "t", rows=len(EXAMPLES[text])) == sequence
    # We choose the same kinds; tiny sets aside, where ranges are as short.
    assert decode_row_ids(encode_row_ids(sequence), "t") == sequence


@pytest.mark.property
@settings(max_examples=300)
@given(IDS)
def test_sequences_round_trip(ids: list[int]) -> None:
    sequence = RowIdSequence.of_array(ids)
    assert len(sequence) == len(ids)
    assert sequence.to_array().tolist() == ids
    assert decode_row_ids(encode_row_ids(sequence), "t", rows=len(ids)) == sequence
    assert sequence.offsets.tolist() == [ids.index(one) for one in sequence.starts.tolist()]


@pytest.mark.property
@given(IDS, st.data())
def test_cutting_and_masking(ids: list[int], data: st.DataObject) -> None:
    sequence = RowIdSequence.of_array(ids)
    start = data.draw(st.integers(0, len(ids)))
    stop = data.draw(st.integers(start, len(ids)))
    assert sequence.slice(start, stop).to_array().tolist() == ids[start:stop]
    gone = sorted(data.draw(st.sets(st.integers(0, max(len(ids) - 1, 0)))))
    kept = [one for at, one in enumerate(ids) if at not in gone]
    assert sequence.without(gone).to_array().tolist() == kept
    offsets = data.draw(st.lists(st.integers(0, len(ids) - 1))) if ids else []
    assert sequence.take(offsets).tolist() == [ids[at] for at in offsets]
    halves = RowIdSequence.concatenate([sequence.slice(0, start), sequence.slice(start, len(ids))])
    assert halves == sequence


@pytest.mark.parametrize("ids", [[2**64 - 1], [2**64 - 1, 0], [0, 2**64 - 1, 1], [2**64 - 2, 2**64 - 1]])
def test_the_largest_id(ids: list[int]) -> None:
    sequence = RowIdSequence.of_array(ids)
    assert decode_row_ids(encode_row_ids(sequence), "t").to_array().tolist() == ids


def test_every_kind_of_segment_is_written() -> None:
    def kinds(ids: Any) -> list[Any]:
        message = pb.RowIdSequence.FromString(encode_row_ids(RowIdSequence.of_array(ids)))
        return [one.WhichOneof("segment") for one in message.segments]

    assert kinds([]) == ["range"]
    assert kinds(range(5, 9)) == ["range"]
    assert kinds(np.delete(np.arange(1000), [100, 101, 500])) == ["range_with_holes"]
    assert kinds(np.arange(0, 1000, 2)) == ["range_with_bitmap"]
    assert kinds(np.arange(0, 60_000, 1000)) == ["sorted_array"]
    assert kinds([9, 3, 7, 1, 100]) == ["array"]
    assert kinds([*range(1000, 2000), *range(900)]) == ["range", "range"]
    wide = pb.RowIdSequence.FromString(encode_row_ids(RowIdSequence.of_array([9, 3, 2**63])))
    assert wide.segments[0].array.WhichOneof("array") == "u64_array"
    middle = pb.RowIdSequence.FromString(encode_row_ids(RowIdSequence.of_array([9, 3, 2**30])))
    assert middle.segments[0].array.WhichOneof("array") == "u32_array"


def segment(**kinds: Any) -> bytes:
    return pb.RowIdSequence(segments=[pb.U64Segment(**kinds)]).SerializeToString()


def numbers(*values: int) -> pb.EncodedU64Array:
    array = pb.EncodedU64Array()
    array.u64_array.values = np.array(values, "<u8").tobytes()
    return array


U64 = pb.U64Segment
BROKEN = {
    "back to": segment(range=U64.Range(start=5, end=4)),
    "at most": segment(range=U64.Range(start=0, end=2**63)),
    "holes of a range do not ascend": segment(
        range_with_holes=U64.RangeWithHoles(end=9, holes=numbers(3, 3))
    ),
    "outside its range": segment(range_with_holes=U64.RangeWithHoles(end=9, holes=numbers(9))),
    "bytes for 9 values": segment(range_with_bitmap=U64.RangeWithBitmap(end=9, bitmap=b"\x01")),
    "behind the end": segment(range_with_bitmap=U64.RangeWithBitmap(end=7, bitmap=b"\x80")),
    "descends": segment(sorted_array=numbers(3, 2)),
    "without values": segment(array=pb.EncodedU64Array()),
    "unknown kind": segment(),
    "no whole number": segment(array=pb.EncodedU64Array(u64_array=pb.EncodedU64Array.U64Array(values=b"x"))),
    "exceed 64 bits": segment(
        array=pb.EncodedU64Array(u16_array=pb.EncodedU64Array.U16Array(base=2**64 - 1, offsets=b"\x01\x00"))
    ),
    "cannot be decoded": b"\x0a\xff",
}


@pytest.mark.fault
@pytest.mark.parametrize("message", BROKEN)
def test_broken_sequences(message: str) -> None:
    with pytest.raises(CorruptFileError, match=f"x: .*{message}"):
        decode_row_ids(BROKEN[message], "x")


@pytest.mark.fault
def test_counts_are_checked_before_anything_is_expanded() -> None:
    huge = segment(range=U64.Range(end=2**32))
    with pytest.raises(CorruptFileError, match="at least 4294967296 row ids for 3 rows"):
        decode_row_ids(huge, "x", rows=3)
    with pytest.raises(CorruptFileError, match="2 row ids for 3 rows"):
        decode_row_ids(segment(array=numbers(1, 5)), "x", rows=3)
    with pytest.raises(CorruptFileError, match="row versions for 3 rows"):
        decode_versions(encode_versions(VersionSequence.uniform(1, 2**32)), 3, "x")


# -- versions ------------------------------------------------------------------------------------------


@pytest.mark.property
@given(st.lists(st.integers(1, 4), max_size=40))
def test_version_sequences_round_trip(versions: list[int]) -> None:
    sequence = VersionSequence.of_array(versions)
    assert sequence.to_array().tolist() == versions
    assert decode_versions(encode_versions(sequence), len(versions), "t").to_array().tolist() == versions
    assert sequence.take(range(len(versions))).tolist() == versions


def test_missing_versions() -> None:
    assert created_versions(fragment(2)).to_array().tolist() == [1, 1]
    created = replace(fragment(2), created_at=encode_versions(VersionSequence.uniform(7, 2)))
    assert updated_versions(created).to_array().tolist() == [7, 7]
    hidden = replace(fragment(2), extra=pb.DataFragment(created_at_version_column={}).SerializeToString())
    with pytest.raises(UnsupportedError, match="outside the manifest"):
        created_versions(hidden)


def test_moved_rows_keep_their_ids_and_creation() -> None:
    (old,), next_id = assign_row_ids((fragment(5),), 10, 3)
    moved = replace(fragment(4), row_ids=encode_row_ids(RowIdSequence.of_array([12, 10])))
    (new,), next_id = adopt_rows([moved], [old], next_id, 8)
    assert fragment_row_ids(new).to_array().tolist() == [12, 10, 15, 16]
    assert created_versions(new).to_array().tolist() == [3, 3, 8, 8]
    assert updated_versions(new).to_array().tolist() == [8, 8, 8, 8]
    assert next_id == 17
    with pytest.raises(InvalidInputError, match="1 rows brings 2 row ids"):
        adopt_rows([replace(moved, physical_rows=1)], [old], 15, 8)


@pytest.mark.property
@given(st.data())
def test_creation_is_found_wherever_the_row_was(data: st.DataObject) -> None:
    ids = data.draw(st.permutations(range(30)))
    created = {one: data.draw(st.integers(1, 5)) for one in ids}
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, 29), max_size=4))), 30]
    sources = []
    for at, (start, stop) in enumerate(pairwise(cuts)):
        part = ids[start:stop]
        sources.append(
            replace(
                fragment(len(part), at),
                row_ids=encode_row_ids(RowIdSequence.of_array(part)),
                created_at=encode_versions(VersionSequence.of_array([created[one] for one in part])),
            )
        )
    chosen = data.draw(st.lists(st.integers(0, 40), unique=True, min_size=1))
    new = replace(fragment(len(chosen)), row_ids=encode_row_ids(RowIdSequence.of_array(chosen)))
    (found,), _ = adopt_rows([new], sources, 100, 9)
    assert created_versions(found).to_array().tolist() == [created.get(one, 1) for one in chosen]


def test_marking_rows_as_updated() -> None:
    (one,), _ = assign_row_ids((fragment(4),), 0, 2)
    some = mark_updated(one, 5, encode_roaring(np.array([1, 3], np.uint32)))
    assert updated_versions(some).to_array().tolist() == [2, 5, 2, 5]
    assert updated_versions(mark_updated(one, 6)).to_array().tolist() == [6] * 4
    with pytest.raises(InvalidInputError, match="row 4"):
        mark_updated(one, 5, encode_roaring(np.array([4], np.uint32)))


# -- the index -----------------------------------------------------------------------------------------


def newest(case: str) -> tuple[LocalStore, Manifest]:
    store = LocalStore(TABLES / f"{case}.lance")
    return store, drive(load_manifest(store, drive(latest_version(store))))


@pytest.mark.golden
@pytest.mark.parametrize("case", STABLE)
def test_golden_row_ids(case: str) -> None:
    store, manifest = newest(case)
    expected = expected_table(TABLES / f"{case}.rowids.arrow")
    ids, addresses = expected["_rowid"].to_numpy(), expected["_rowaddr"].to_numpy()
    index = drive(load_row_id_index(store, manifest))
    assert len(index) == len(ids)
    found, known = index.lookup(ids)
    assert known.all()
    assert found.tolist() == addresses.tolist()
    _, known = index.lookup([manifest.next_row_id, 2**64 - 1])
    assert not known.any()
    by_id = manifest.fragment_by_id()
    for name, versions in (
        ("_row_created_at_version", created_versions),
        ("_row_last_updated_at_version", updated_versions),
    ):
        values = [
            int(versions(by_id[address >> 32]).take([address & 0xFFFFFFFF])[0])
            for address in addresses.tolist()
        ]
        assert values == expected[name].to_pylist()


def index_over(*entries: tuple[int, list[int], list[int]]) -> RowIdIndex:
    return build_row_id_index((one, RowIdSequence.of_array(ids), gone) for one, ids, gone in entries)


def test_moved_rows_are_found_in_their_new_place() -> None:
    index = index_over((0, [0, 1, 2, 3], [1]), (7, [1, 9], []))
    addresses, known = index.lookup([1, 3, 4, 9, 1])
    assert addresses.tolist() == [7 << 32, 3, 0, (7 << 32) + 1, 7 << 32]
    assert known.tolist() == [True, True, False, True, True]
    empty, known = index_over().lookup([1])
    assert (empty.tolist(), known.tolist()) == ([0], [False])


@pytest.mark.fault
def test_a_row_that_is_live_twice() -> None:
    with pytest.raises(CorruptFileError, match="row id 1 is live in fragment 0 and in fragment 7"):
        index_over((0, [0, 1, 2], []), (7, [1], []))


@pytest.mark.property
@given(st.data())
def test_the_index_answers_like_a_dictionary(data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, 200), unique=True, max_size=80))
    truth, entries = {}, []
    for number in range(3):
        part = ids[number::3] if data.draw(st.booleans()) else sorted(ids[number::3])
        gone = sorted(data.draw(st.sets(st.integers(0, max(len(part) - 1, 0)))))
        entries.append((number, part, gone))
        truth.update({one: (number << 32) + at for at, one in enumerate(part) if at not in gone})
    asked = data.draw(st.lists(st.integers(0, 210)))
    addresses, known = index_over(*entries).lookup(asked)
    assert known.tolist() == [one in truth for one in asked]
    assert addresses.tolist() == [truth.get(one, 0) for one in asked]


def test_large_tables_are_indexed_by_runs() -> None:
    rows = 1 << 31
    entries = [(at, RowIdSequence.of_range(at * rows, (at + 1) * rows), ()) for at in range(1000)]
    index = build_row_id_index(entries)
    assert len(index.first_ids) == 1000
    wanted = random.Random(1).sample(range(1000 * rows), 100)
    assert index.lookup(wanted)[0].tolist() == [(one // rows << 32) + one % rows for one in wanted]


def test_row_ids_in_a_file_of_their_own() -> None:
    store = MemoryStore()
    data = encode_row_ids(RowIdSequence.of_array([4, 2, 9]))
    drive(store.put("x/ids", b"__" + data))
    extra = pb.DataFragment(external_row_ids={"path": "x/ids", "offset": 2, "size": len(data)})
    one = Fragment(0, fragment().files, 3, extra=extra.SerializeToString())
    assert drive(read_row_ids(store, one)).to_array().tolist() == [4, 2, 9]
    with pytest.raises(UnsupportedError, match="outside the manifest"):
        fragment_row_ids(one)
    with pytest.raises(CorruptFileError, match="has no row ids"):
        fragment_row_ids(fragment())
