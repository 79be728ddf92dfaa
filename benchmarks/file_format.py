"""Files of one column beside the reference: how large they are, how fast they are written and read.

For each kind of data both engines write a file of format 2.2 and read it whole, alternating, and the ratios of the
medians are printed: above 1 pilum is faster; a size below 1 is smaller.  On a machine that does other things compare
processor time (``--clock cpu``, all threads of both engines) rather than wall time.

    python benchmarks/file_format.py                  10 million values
    python benchmarks/file_format.py --rows 1000000 --only text --repeat 5
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from engines import Clock

from pilum.encoding.kernels import preload
from pilum.file import FileReader, FileWriter
from pilum.io import LocalStore, run
from pilum.schema import Schema

WORDS = [
    "the",
    "quick",
    "brown",
    "https://example.com/",
    "user",
    "id=",
    "2024-01-",
    "error",
    "warning",
    "Straße",
]


def texts(rng: np.random.Generator, rows: int, low: int, high: int) -> Any:
    """Strings of some words and a number."""
    pool = np.array(WORDS)
    base = [" ".join(pool[rng.integers(len(pool), size=n)]) for n in rng.integers(low, high, 5000)]
    picked = rng.integers(len(base), size=rows)
    left = pa.array(base).take(pa.array(picked))
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(
        left, pc.cast(pa.array(rng.integers(10**6, size=rows)), pa.string()), ""
    )


def nullable(array: Any, rng: np.random.Generator, share: float) -> Any:
    """The array with some values null."""
    import pyarrow.compute as pc

    return pc.if_else(pa.array(rng.random(len(array)) >= share), array, None)


def lists(rng: np.random.Generator, values: Any) -> Any:
    """Lists of 0 to 9 items over the values."""
    ends = np.concatenate([[0], np.cumsum(rng.integers(0, 10, len(values) // 4))])
    return pa.ListArray.from_arrays(pa.array(ends[ends <= len(values)].astype(np.int32)), values)


CASES: dict[str, tuple[Callable[[np.random.Generator, int], Any], dict[str, str]]] = {
    "flat int64": (lambda g, n: pa.array(g.integers(-(2**62), 2**62, n)), {}),
    "flat float32": (lambda g, n: pa.array(g.standard_normal(n).astype(np.float32)), {}),
    "flat bool": (lambda g, n: pa.array(g.random(n) < 0.5), {}),
    "decimal128": (
        lambda g, n: pa.Array.from_buffers(
            pa.decimal128(30, 2), n, [None, pa.py_buffer(g.integers(0, 2**60, (n, 2)) & [[2**63 - 1, 0xFFFF]])]
        ),
        {},
    ),
    "bit-packing int32": (lambda g, n: pa.array(g.integers(0, 5000, n).astype(np.int32)), {}),
    "bit-packing int64": (lambda g, n: pa.array(np.arange(n) + g.integers(0, 1000, n)), {}),
    "bit-packing, nulls": (lambda g, n: nullable(pa.array(g.integers(0, 5000, n).astype(np.int32)), g, 0.1), {}),
    "run-length int32": (lambda g, n: pa.array(np.repeat(g.integers(0, 2**31, n // 50 + 1), 50)[:n].astype(np.int32)), {}),
    "dictionary int64": (lambda g, n: pa.array(g.choice(g.integers(0, 2**60, 1000), n)), {}),
    "dictionary text": (lambda g, n: texts(g, 1000, 2, 6).take(pa.array(g.integers(1000, size=n))), {}),
    "Arrow dictionary": (
        lambda g, n: pa.DictionaryArray.from_arrays(pa.array(g.integers(0, 1000, n).astype(np.int32)), texts(g, 1000, 2, 6)),
        {},
    ),
    "zstd int64": (lambda g, n: pa.array(g.integers(0, 5000, n) * 1000), {"lance-encoding:compression": "zstd"}),
    "lz4 float64 (bss)": (
        lambda g, n: pa.array(np.round(g.standard_normal(n), 2)),
        {"lance-encoding:compression": "lz4", "lance-encoding:bss": "on"},
    ),
    "zstd text": (lambda g, n: texts(g, n, 1, 4), {"lance-encoding:compression": "zstd"}),
    "variable text": (lambda g, n: texts(g, n, 1, 4), {"lance-encoding:compression": "none"}),
    "fsst text": (lambda g, n: texts(g, n, 1, 4), {}),
    "binary": (lambda g, n: texts(g, n, 1, 4).cast(pa.binary()), {}),
    "full-zip text": (lambda g, n: texts(g, max(1, n // 40), 60, 120), {"lance-encoding:compression": "none"}),
    "full-zip zstd": (lambda g, n: texts(g, max(1, n // 40), 60, 120), {"lance-encoding:compression": "zstd"}),
    "vectors 128": (
        lambda g, n: pa.FixedSizeListArray.from_arrays(pa.array(g.standard_normal(n // 10 // 128 * 128 * 10).astype(np.float32)), 128),
        {},
    ),
    "fixed-size list 3": (
        lambda g, n: pa.FixedSizeListArray.from_arrays(pa.array(g.standard_normal(n // 3 * 3).astype(np.float32)), 3),
        {},
    ),
    "list int32": (lambda g, n: lists(g, pa.array(g.integers(0, 5000, n).astype(np.int32))), {}),
    "list text": (lambda g, n: lists(g, texts(g, n, 1, 3)), {}),
    "struct": (
        lambda g, n: pa.StructArray.from_arrays(
            [pa.array(g.integers(0, 100, n)), nullable(pa.array(g.standard_normal(n)), g, 0.2)], ["a", "b"]
        ),
        {},
    ),
    "packed struct": (
        lambda g, n: pa.StructArray.from_arrays(
            [pa.array(g.integers(0, 100, n)), pa.array(g.standard_normal(n).astype(np.float32))], ["a", "b"]
        ),
        {"lance-encoding:packed": "true"},
    ),
}  # fmt: skip


CLOCK = Clock()


def pilum_write(path: Path, batches: list[pa.RecordBatch]) -> None:
    async def write() -> None:
        schema = Schema.from_arrow(batches[0].schema)
        async with await FileWriter.create(LocalStore(str(path.parent)), path.name, schema) as writer:
            for batch in batches:
                await writer.write(batch)

    run(write(), suspends=False)


def pilum_read(path: Path) -> int:
    from contextlib import aclosing

    async def read() -> int:
        reader = await FileReader.open(LocalStore(str(path.parent)), path.name)
        rows = 0
        async with aclosing(await reader.read_stream(batch_size=65_536)) as stream:
            async for batch in stream:
                rows += batch.num_rows
        return rows

    return run(read(), suspends=False)


def reference_write(path: Path, batches: list[pa.RecordBatch]) -> None:
    from lance.file import LanceFileWriter

    with LanceFileWriter(str(path), batches[0].schema, version="2.2") as writer:
        for batch in batches:
            writer.write_batch(batch)


def reference_read(path: Path) -> int:
    from lance.file import LanceFileReader

    return sum(
        batch.num_rows for batch in LanceFileReader(str(path)).read_all(batch_size=65_536).to_batches()
    )


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Time of a call.

    Nothing is collected between the calls: walking over all objects of a process empties the processor's caches, and
    filling them again takes longer (0.6 ms) than reading a small file, for both engines.
    """
    started = CLOCK.now()
    function(*arguments)
    return CLOCK.now() - started


def measure(name: str, rows: int, repeat: int, folder: Path) -> tuple[float, float, float]:
    make, metadata = CASES[name]
    array = make(np.random.default_rng(7), rows)
    schema = pa.schema([pa.field("a", array.type, metadata=metadata)])
    whole = pa.RecordBatch.from_arrays([array], schema=schema)
    step = max(1, len(array) // 10)
    # whole arrays: what a writer makes of slices is another question
    batches = [pa.concat_batches([whole.slice(at, step)]) for at in range(0, len(array), step)]
    ours, theirs = folder / "ours.lance", folder / "theirs.lance"
    gc.collect()
    times: dict[str, list[float]] = {"ow": [], "tw": [], "or": [], "tr": []}
    for number in range(repeat + 1):
        found = {
            "ow": seconds(pilum_write, ours, batches),
            "tw": seconds(reference_write, theirs, batches),
            "or": seconds(pilum_read, ours),
            "tr": seconds(reference_read, theirs),
        }
        if number:
            for key, value in found.items():
                times[key].append(value)
    medians = {key: statistics.median(values) for key, values in times.items()}
    sizes = ours.stat().st_size, theirs.stat().st_size
    decode, encode, size = medians["tr"] / medians["or"], medians["tw"] / medians["ow"], sizes[0] / sizes[1]
    print(
        f"{name:22} decode {decode:6.2f}x ({medians['or'] * 1e3:7.1f} ms)  encode {encode:6.2f}x"
        f" ({medians['ow'] * 1e3:7.1f} ms)  size {size:6.3f} ({sizes[0] / 1e6:7.1f} MB)",
        flush=True,
    )
    return decode, encode, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    CLOCK.add_option(parser)
    arguments = parser.parse_args()
    CLOCK.choose(arguments)
    preload()
    with tempfile.TemporaryDirectory() as folder:
        found = [
            measure(name, arguments.rows, arguments.repeat, Path(folder))
            for name in CASES
            if arguments.only in name
        ]
    means = [math.exp(statistics.fmean(map(math.log, column))) for column in zip(*found, strict=True)]
    print(
        f"{'geometric mean':22} decode {means[0]:6.2f}x{'':14} encode {means[1]:6.2f}x{'':14} size {means[2]:6.3f}"
    )


if __name__ == "__main__":
    main()
