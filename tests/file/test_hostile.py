"""Hand-made hostile metadata: pages that claim what their bytes cannot hold are refused, quickly and in little memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilum.errors import CorruptFileError, InvalidInputError, PilumError, UnsupportedError
from pilum.file import FileReader
from pilum.file.container import closing_sections, column_encoding, page_encoding
from pilum.io import MemoryStore
from pilum.proto import container_pb2, planar_pb2
from pilum.proto import encodings_pb2 as pb
from pilum.schema import Schema
from tests.file.files import drive

pytestmark = [pytest.mark.fault]

HUGE = (1 << 63) - 1


def flat(bits: int) -> Any:
    return pb.CompressiveEncoding(flat=pb.Flat(bits_per_value=bits))


def general(scheme: int, child: Any) -> Any:
    compression = pb.BufferCompression(scheme=scheme)  # type: ignore[arg-type]
    return pb.CompressiveEncoding(general=pb.General(compression=compression, values=child))


def file_of(
    layout: Any, buffers: list[bytes], *, rows: int, length: int | None = None, kind: Any = None,
    places: list[tuple[int, int]] | None = None, version: tuple[int, int] = (2, 2), metadata: Any = None,
) -> MemoryStore:  # fmt: skip
    """A file of one column with one page that is what ``layout`` says."""
    data, offsets, sizes = b"", [], []
    for buffer in buffers:
        offsets.append(len(data))
        sizes.append(len(buffer))
        data += buffer + bytes(-len(buffer) % 64)
    if places is not None:
        offsets, sizes = [a for a, _ in places], [b for _, b in places]
    encoding = page_encoding(layout.SerializeToString())
    if layout.DESCRIPTOR.name == "PlanarLayout":
        encoding = encoding.replace(b"encodings21.PageLayout", b"encodings23.PlanarLayout")
        from google.protobuf.any_pb2 import Any as Wrapped

        wrapped = Wrapped(type_url="/lance.encodings23.PlanarLayout", value=layout.SerializeToString())
        encoding = wrapped.SerializeToString()
    page = container_pb2.ColumnMetadata.Page(
        buffer_offsets=offsets,
        buffer_sizes=sizes,
        length=rows if length is None else length,
        encoding=container_pb2.Encoding(direct=container_pb2.DirectEncoding(encoding=encoding)),
    )
    column = container_pb2.ColumnMetadata(
        encoding=container_pb2.Encoding(direct=container_pb2.DirectEncoding(encoding=column_encoding())),
        pages=[page],
    )
    from pilum.proto import file_pb2

    schema = Schema.from_arrow(pa.schema([pa.field("a", kind or pa.int32(), metadata=metadata)]))
    descriptor = file_pb2.FileDescriptor(schema=schema.to_proto_message(), length=rows)
    data += closing_sections(
        descriptor.SerializeToString(), [column.SerializeToString()], [], len(data), version
    )
    store = MemoryStore()
    drive(store.put("f", data))
    return store


def read(store: MemoryStore, rows: Any = None) -> pa.RecordBatch:
    async def main() -> pa.RecordBatch:
        return await (await FileReader.open(store, "f")).read_batch(rows)

    return drive(main())


def mini(value: Any, *, items: int, layers: tuple[int, ...] = (1,), buffers: int = 1, **more: Any) -> Any:
    message = pb.MiniBlockLayout(
        value_compression=value,
        num_items=items,
        layers=layers,
        num_buffers=buffers,
        has_large_chunk=True,
        **more,  # type: ignore[arg-type]
    )
    return pb.PageLayout(mini_block_layout=message)


def words(*pairs: tuple[int, int]) -> bytes:
    """Chunk words of (bytes, log)."""
    return np.array([((size // 8 - 1) << 4) | log for size, log in pairs], "<u4").tobytes()


def chunk(*sizes: int, body: bytes, levels: int = 0, small: tuple[int, ...] = ()) -> bytes:
    head = np.array([levels, *small], "<u2").tobytes() + np.array(sizes, "<u4").tobytes()
    data = head + bytes(-len(head) % 8) + body
    return data + bytes(-len(data) % 8)


def planar(structure: Any, values: Any) -> Any:
    return planar_pb2.PlanarLayout(structure=structure, values=values)


def nested_general(depth: int) -> Any:
    ce = flat(32)
    for _ in range(depth):
        ce = general(2, ce)
    return ce


def nested_list(depth: int) -> Any:
    ce = flat(32)
    for _ in range(depth):
        ce = pb.CompressiveEncoding(fixed_size_list=pb.FixedSizeList(items_per_value=2, values=ce))
    return ce


def nested_blob(depth: int) -> Any:
    layout = mini(flat(32), items=1)
    for _ in range(depth):
        layout = pb.PageLayout(blob_layout=pb.BlobLayout(inner_layout=layout, layers=[1]))  # type: ignore[list-item]
    return layout


def zstd_claim(size: int) -> bytes:
    """A frame of one run-length block of 128 KiB that claims ``size`` bytes."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + size.to_bytes(8, "little")
    block = (1 | 1 << 1 | (1 << 17) << 3).to_bytes(3, "little") + b"\x00"
    return size.to_bytes(8, "little") + header + block


BODY = chunk(16, body=np.arange(4, dtype="<i4").tobytes())
BLOB = {"lance-encoding:blob": "true"}
PAIRS = pb.CompressiveEncoding(packed_struct=pb.PackedStruct(bits_per_value=[64, 64], values=flat(128)))


def blob_page(*descriptors: tuple[int, int]) -> MemoryStore:
    body = chunk(16 * len(descriptors), body=np.array(descriptors, "<u8").tobytes())
    inner = mini(PAIRS, items=len(descriptors))
    layout = pb.PageLayout(blob_layout=pb.BlobLayout(inner_layout=inner, layers=[3]))  # type: ignore[list-item]
    return file_of(
        layout, [words((len(body), 0)), body], rows=len(descriptors), kind=pa.large_binary(), metadata=BLOB
    )


def sparse(layer: Any, values: Any, buffers: list[bytes], rows: int, **options: Any) -> MemoryStore:
    structure = planar_pb2.PlanarLayout.Structure(sparse=planar_pb2.SparseStructure(layers=[layer]))
    return file_of(planar(structure, values), buffers, rows=rows, version=(2, 3), **options)


def validity(ce: Any, count: int, meaning: int = 1) -> Any:
    return planar_pb2.SparseLayer(
        validity=planar_pb2.SparseLayer.Validity(meaning=meaning, positions=ce, num_positions=count)
    )


NONE = planar_pb2.PlanarLayout.Values(none=planar_pb2.NoValues())
CASES: dict[str, Callable[[], MemoryStore]] = {
    "rows beyond the items": lambda: file_of(mini(flat(32), items=4), [words((len(BODY), 0)), BODY], rows=HUGE >> 1),
    "items beyond every file": lambda: file_of(mini(flat(32), items=HUGE), [words((len(BODY), 0)), BODY], rows=HUGE),
    "items beyond the chunk": lambda: file_of(mini(flat(32), items=1 << 40), [words((len(BODY), 0)), BODY], rows=1 << 40),
    "many items in wide values": lambda: file_of(mini(flat(1 << 34), items=1 << 40), [words((len(BODY), 0)), BODY], rows=1 << 40),
    "no chunk words": lambda: file_of(mini(flat(32), items=4), [b"", BODY], rows=4),
    "chunk words of zeros": lambda: file_of(mini(flat(32), items=4), [bytes(4000), BODY], rows=4),
    "a chunk of no bytes": lambda: file_of(mini(flat(32), items=4), [words((8, 0)), b""], rows=4),
    "chunks longer than their buffer": lambda: file_of(mini(flat(32), items=4), [words((1 << 20, 0)), BODY], rows=4),
    "a value buffer longer than its chunk": lambda: file_of(
        mini(flat(32), items=4), [words((24, 0)), chunk(4_000_000_000, body=bytes(16))], rows=4
    ),
    "buffers outside the file": lambda: file_of(mini(flat(32), items=4), [], rows=4, places=[(0, 4), (64, 1 << 50)]),
    "buffers at the end of the world": lambda: file_of(mini(flat(32), items=4), [], rows=4, places=[(0, 4), ((1 << 64) - 64, 64)]),
    "buffers that overlap": lambda: file_of(mini(flat(32), items=4), [bytes(64)], rows=4, places=[(0, 24), (0, 24)]),
    "misaligned buffers": lambda: file_of(mini(flat(32), items=4), [bytes(128)], rows=4, places=[(1, 4), (64, 24)]),
    "a buffer too many": lambda: file_of(mini(flat(32), items=4), [words((len(BODY), 0)), BODY, b"x"], rows=4),
    "dictionary of many items": lambda: file_of(
        mini(flat(32), items=4, dictionary=flat(32), num_dictionary_items=HUGE), [words((len(BODY), 0)), BODY, bytes(64)], rows=4
    ),
    "constant dictionary of many items": lambda: file_of(
        mini(flat(32), items=4, dictionary=pb.CompressiveEncoding(constant=pb.Constant(value=bytes(4))), num_dictionary_items=1 << 39),
        [words((len(BODY), 0)), BODY, b""],
        rows=4,
    ),
    "a zstd bomb": lambda: file_of(
        mini(general(2, flat(32)), items=4), [words((64, 0)), chunk(26, body=zstd_claim(1 << 40)).ljust(64, b"\0")], rows=4
    ),
    "a smaller zstd bomb": lambda: file_of(
        mini(general(2, flat(32)), items=4), [words((64, 0)), chunk(26, body=zstd_claim(1 << 18)).ljust(64, b"\0")], rows=4
    ),
    "an LZ4 bomb": lambda: file_of(
        mini(general(1, flat(32)), items=4), [words((32, 0)), chunk(12, body=b"\xff\xff\xff\x7f" + bytes(8)).ljust(32, b"\0")], rows=4
    ),
    "runs of nothing": lambda: file_of(
        mini(pb.CompressiveEncoding(rle=pb.Rle(values=flat(32), run_lengths=flat(8))), items=4, buffers=2),
        [words((32, 0)), chunk(4, 1, body=bytes(12)).ljust(32, b"\0")], rows=4,
    ),
    "lists of too many items": lambda: file_of(
        mini(pb.CompressiveEncoding(fixed_size_list=pb.FixedSizeList(items_per_value=HUGE, values=flat(32))), items=4),
        [words((len(BODY), 0)), BODY], rows=4,
    ),
    "lists of no items": lambda: file_of(
        mini(pb.CompressiveEncoding(fixed_size_list=pb.FixedSizeList(items_per_value=0, values=flat(32))), items=4),
        [words((len(BODY), 0)), BODY], rows=4,
    ),
    "a deep tree": lambda: file_of(mini(nested_general(40), items=4), [words((len(BODY), 0)), BODY], rows=4),
    "a deep list": lambda: file_of(mini(nested_list(40), items=4), [words((len(BODY), 0)), BODY], rows=4),
    "blobs in blobs": lambda: file_of(nested_blob(30), [words((len(BODY), 0)), BODY], rows=1, kind=pa.large_binary(), metadata=BLOB),
    "layers without end": lambda: file_of(mini(flat(32), items=4, layers=(1,) * 10_000), [words((len(BODY), 0)), BODY], rows=4),
    "all-null rows without end": lambda: file_of(pb.PageLayout(constant_layout=pb.ConstantLayout(layers=[6, 1])), [b"", b""], rows=1 << 50),
    "packed members of no width": lambda: file_of(
        mini(pb.CompressiveEncoding(packed_struct=pb.PackedStruct(bits_per_value=[0, 32], values=flat(32))), items=4),
        [words((len(BODY), 0)), BODY], rows=4,
    ),
    "packed members wider than the struct": lambda: file_of(
        mini(pb.CompressiveEncoding(packed_struct=pb.PackedStruct(bits_per_value=[32, 32], values=flat(32))), items=4),
        [words((len(BODY), 0)), BODY], rows=4,
    ),
    "a blob outside the file": lambda: blob_page((0, 1 << 40)),
    "a blob that wraps around": lambda: blob_page(((1 << 64) - 8, 64)),
    "the file as a blob many times": lambda: blob_page(*[(0, 128)] * 1000),
    "a null blob of no level": lambda: blob_page((1 << 40, 0)),
    "sparse positions without end": lambda: sparse(validity(pb.CompressiveEncoding(range=pb.Range(bits=64, step=1)), 1 << 60), NONE, [], 4),
    "sparse positions outside": lambda: sparse(validity(pb.CompressiveEncoding(range=pb.Range(bits=64, start=9, step=1)), 2), NONE, [], 4),
    "sparse positions twice": lambda: sparse(validity(pb.CompressiveEncoding(constant=pb.Constant(value=bytes(8))), 2), NONE, [], 4),
    "sparse rows without end": lambda: sparse(validity(pb.CompressiveEncoding(range=pb.Range(bits=64, step=1)), 2), NONE, [], 1 << 50),
    "a sparse set of no meaning": lambda: sparse(validity(pb.CompressiveEncoding(range=pb.Range(bits=64, step=1)), 2, 0), NONE, [], 4),
    "a planar page of nothing": lambda: file_of(planar_pb2.PlanarLayout(), [], rows=4, version=(2, 3)),
    "a planar page in 2.2": lambda: file_of(planar_pb2.PlanarLayout(), [], rows=4),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_hostile_pages(name: str) -> None:
    store = CASES[name]()
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises((CorruptFileError, UnsupportedError, InvalidInputError)) as caught:
        read(store)
    elapsed = time.monotonic() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(caught.value, PilumError)
    assert peak < 64 << 20, f"{peak >> 20} MiB"
    assert elapsed < 10
    assert "file f" in str(caught.value) or "f" in str(caught.value)


def test_all_null_pages_cost_only_what_is_asked_for() -> None:
    """A page of all nulls may claim any number of rows: nothing is made of them before they are read."""
    store = file_of(pb.PageLayout(constant_layout=pb.ConstantLayout(layers=[3])), [], rows=1 << 40)  # type: ignore[list-item]
    assert read(store, range(1 << 39, (1 << 39) + 5)).column(0).null_count == 5
