"""The reader's surface: streams, tasks, priming, errors, requests."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum import config
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.file import FileReader, FileWriter, Session
from pilum.io import MemoryStore, trace
from pilum.schema import Schema
from tests.file.files import assert_same, drive, write_memory

ROWS = 50_000
BATCH = pa.record_batch(
    {
        "id": np.arange(ROWS),
        "text": [f"t{i}" for i in range(ROWS)],
        "vec": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(ROWS * 4, dtype=np.float32)), 4),
        "st": pa.StructArray.from_arrays(
            [pa.array(range(ROWS)), pa.array([None if i % 3 else "s" for i in range(ROWS)])], names=["x", "y"],
            mask=pa.array([i % 7 == 0 for i in range(ROWS)]),
        ),
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def stored() -> tuple[Any, str]:
    return write_memory([BATCH])


async def collect(reader: FileReader, *args: Any, **options: Any) -> list[pa.RecordBatch]:
    stream = await reader.read_stream_projected(*args, **options)
    async with aclosing(stream):
        return [batch async for batch in stream]


SELECTIONS = [
    None,
    range(10),
    range(17, 40_001),
    [range(3, 5), range(5, 9), range(30_000, 49_999)],
    np.array([0, 1, 2, 5000, 49_999]),
    list(range(0, 50_000, 7)),
]


def indices(selection: Any) -> Any:
    if selection is None:
        return np.arange(ROWS)
    if isinstance(selection, range):
        return np.arange(selection.start, selection.stop)
    if isinstance(selection, list) and isinstance(selection[0], range):
        return np.concatenate([np.arange(r.start, r.stop) for r in selection])
    return np.asarray(selection)


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("batch_size", [1000, 8192])
def test_streams_have_full_batches_and_the_right_rows(stored: Any, selection: Any, batch_size: int) -> None:
    async def main() -> list[pa.RecordBatch]:
        return await collect(await FileReader.open(*stored), selection, batch_size, 4, ["id", "st"])

    found = drive(main())
    sizes = [batch.num_rows for batch in found]
    assert all(size == batch_size for size in sizes[:-1])
    assert 0 < sizes[-1] <= batch_size
    expected = BATCH.select(["id", "st"]).take(pa.array(indices(selection)))
    joined = pa.Table.from_batches(found)
    for name in ("id", "st"):
        assert_same(joined[name], expected.column(name), name)


def test_streams_under_a_loop(stored: Any) -> None:
    async def main() -> list[pa.RecordBatch]:
        return await collect(await FileReader.open(*stored), None, 4096, None, ["text"])

    assert_same(pa.Table.from_batches(asyncio.run(main()))["text"], BATCH.column("text"))


@pytest.mark.parametrize("threshold", ["0", "16384"])
def test_read_tasks_know_their_rows_and_can_be_awaited_in_any_order(
    stored: Any, threshold: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANCE_INLINE_SCHEDULING_THRESHOLD", threshold)

    async def main() -> None:
        reader = await FileReader.open(*stored)
        stream = await reader.read_tasks(range(100, 5100), 2000, ["id"])
        tasks = [task async for task in stream]
        assert [task.num_rows for task in tasks] == [2000, 2000, 1000]
        for number in (2, 0, 1):
            batch = await tasks[number]
            start = 100 + 2000 * number
            assert batch.column(0).to_pylist() == list(range(start, start + tasks[number].num_rows))

    if hasattr(config.inline_scheduling_threshold, "cache_clear"):
        config.inline_scheduling_threshold.cache_clear()
    drive(main())


def test_read_range_and_read_ranges(stored: Any) -> None:
    async def main() -> None:
        reader = await FileReader.open(*stored)
        one = [b async for b in await reader.read_range(10, 20, projection=["id"])]
        assert one[0].column(0).to_pylist() == list(range(10, 20))
        many = [b async for b in await reader.read_ranges([range(3), range(9, 10)], projection=["id"])]
        assert many[0].column(0).to_pylist() == [0, 1, 2, 9]
        assert [b async for b in await reader.read_range(5, 5)] == []

    drive(main())


def test_what_is_handed_out_is_primed(stored: Any) -> None:
    """After the await only data is asked for."""

    async def main() -> None:
        with trace() as log:
            reader = await FileReader.open(*stored)
            stream = await reader.read_stream()
        before = {request.who for request in log.requests}
        assert "data" not in before
        assert before
        with trace() as log:
            async with aclosing(stream):
                async for _ in stream:
                    pass
        assert {request.who for request in log.requests} == {"data"}

    drive(main())


def test_a_second_reader_of_the_session_asks_for_data_only(stored: Any) -> None:
    async def main() -> None:
        cache = Session().cache
        await (await FileReader.open(*stored, cache=cache)).read_batch(range(5))
        with trace() as log:
            batch = await (await FileReader.open(*stored, cache=cache)).read_batch(range(5))
        assert batch.num_rows == 5
        assert {request.who for request in log.requests} == {"data"}

    drive(main())


def test_a_whole_read_is_one_request() -> None:
    batch = BATCH.slice(0, 1000)
    store, path = write_memory([batch])

    async def main() -> None:
        size = (await store.head(path)).size
        with trace() as log:
            reader = await FileReader.open(store, path, size=size, whole=True)
            found = await reader.read_batch()
        assert len(log.requests) == 1
        for name in batch.schema.names:
            assert_same(found.column(name), batch.column(name), name)

    drive(main())


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (range(ROWS + 1), "out of range"),
        (range(-1, 5), "out of range"),
        (range(0, 10, 2), "step 1"),
        ([5, 5], "strictly increasing"),
        ([6, 5], "strictly increasing"),
        ([-1, 5], "out of range"),
        ([ROWS], "out of range"),
        ([[1, 2]], "one-dimensional"),
        ([1.5], "integers"),
        ([range(5, 9), range(3)], "sorted"),
        ([range(9), range(8, 12)], "overlap"),
        ([0, None], "integers"),
    ],
)
def test_bad_selections(stored: Any, selection: Any, message: str) -> None:
    async def main() -> None:
        await (await FileReader.open(*stored)).read_stream(selection)

    with pytest.raises(InvalidInputError, match=message):
        drive(main())


def test_bad_arguments(stored: Any) -> None:
    async def stream(**options: Any) -> None:
        await (await FileReader.open(*stored)).read_stream_projected(**options)

    for options in ({"batch_size": 0}, {"batch_readahead": 0}, {"projection": ["nope"]}):
        with pytest.raises(InvalidInputError):
            drive(stream(**options))


def test_nested_projection(stored: Any) -> None:
    async def main() -> pa.RecordBatch:
        return await (await FileReader.open(*stored)).read_batch(range(20), ["st.y"])

    found = drive(main())
    assert found.schema.field("st").type == pa.struct([("y", pa.string())])
    assert found.column("st").to_pylist() == [
        None if row is None else {"y": row["y"]} for row in BATCH.column("st").slice(0, 20).to_pylist()
    ]


def test_the_writer_refuses_what_it_cannot_hold() -> None:
    async def create(version: tuple[int, int], **fields: Any) -> FileWriter:
        schema = Schema.from_arrow(pa.schema(list(fields.items())))
        return await FileWriter.create(MemoryStore(), "f", schema, version=version)

    with pytest.raises(UnsupportedError, match=r"2\.3"):
        drive(create((2, 3), a=pa.int32()))
    with pytest.raises(UnsupportedError, match=r"2\.2"):
        drive(create((2, 1), a=pa.map_(pa.string(), pa.int32())))

    async def mismatch() -> None:
        writer = await create((2, 2), a=pa.int32())
        await writer.write(pa.record_batch({"a": pa.array([1], pa.int64())}))

    with pytest.raises(InvalidInputError, match="int64"):
        drive(mismatch())


def test_an_aborted_file_does_not_exist() -> None:
    store = MemoryStore()

    async def main() -> None:
        async def broken() -> None:
            async with await FileWriter.create(store, "f", Schema.from_arrow(BATCH.schema)) as writer:
                await writer.write(BATCH)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await broken()
        with pytest.raises(FileNotFoundError):
            await store.head("f")

    drive(main())


def test_user_buffers_are_numbered_from_one() -> None:
    store = MemoryStore()

    async def main() -> None:
        async with await FileWriter.create(store, "f", Schema.from_arrow(BATCH.schema)) as writer:
            assert await writer.add_global_buffer(b"first") == 1
            await writer.write(BATCH.slice(0, 10))
            assert await writer.add_global_buffer(b"") == 2
        reader = await FileReader.open(store, "f")
        assert [await reader.read_global_buffer(i) for i in (1, 2)] == [b"first", b""]

    drive(main())
