"""Blobs beside a data file, and a column that describes them."""

import os

import lance
import pyarrow as pa
from lance.blob import Blob, BlobDescriptorArrayBuilder, blob_array, blob_field
from lance.file import LanceFileSession

session = LanceFileSession("files")
packed = session.open_packed_blob_writer("data/a.lance", 1)
packed.write_blobs(pa.array([b"one", None, b"three"]))
packed.write_blob(b"four")
print(packed.blob_id, packed.path.endswith("files/data/a/10000000000000000000000000000000.blob"))
dedicated = session.open_dedicated_blob_writer("data/a.lance", 2)
dedicated.write(b"large")
builder = BlobDescriptorArrayBuilder("blob")
builder.extend(packed.finish())
builder.append(dedicated.finish())
builder.append_inline(b"small")
column = builder.finish()
print(column.type)
for row in column.to_pylist():
    print(row)
schema = pa.schema([builder.field, pa.field("i", pa.int32())])
with session.open_writer("data/a.lance", schema=schema, version="2.2") as writer:
    writer.write_batch(pa.record_batch([column, pa.array(range(6), pa.int32())], schema=schema))
for name in sorted(session.list("data")):
    print(name, os.path.getsize(os.path.join("files", name)))
try:
    session.open_packed_blob_writer("data/a", 1)
except ValueError:
    print("not a data file")
print(repr(Blob.from_uri("s3://a/b", 1, 2)), blob_array([b"x", None, "uri"]).to_pylist())
print(
    blob_field("x", inline_size_threshold=5).metadata,
    lance.BlobDescriptorArrayBuilder is BlobDescriptorArrayBuilder,
)
