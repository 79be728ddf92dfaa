"""Columns of blobs: their fields, and writing them beside data files (`spec/api.md`, section 8).

Reading blobs, and writing them with `pilum.write_dataset`, is not there yet.

Example:
    >>> import pilum, pyarrow as pa
    >>> from pilum.blob import BlobDescriptorArrayBuilder
    >>> session = pilum.LanceFileSession("memory://doc-blob")
    >>> with session.open_packed_blob_writer("data/a.lance", 1) as writer:
    ...     writer.write_blobs(pa.array([b"one", b"two"]))
    ...     packed = writer.finish()
    >>> builder = BlobDescriptorArrayBuilder("blob")
    >>> builder.extend(packed)
    >>> builder.append_inline(b"kept in the data file")
    >>> schema = pa.schema([builder.field])
    >>> with session.open_writer("data/a.lance", schema=schema) as writer:
    ...     writer.write_batch(pa.table([builder.finish()], schema=schema))
    >>> table = session.open_reader("data/a.lance").read_all().to_table()
    >>> [row["kind"] for row in table["blob"].to_pylist()]
    [1, 1, 0]
"""

from __future__ import annotations

from pilum.file.blob_descriptors import BlobDescriptor, BlobDescriptorArrayBuilder
from pilum.file.synchronous_blobs import DedicatedBlobWriter, PackedBlobWriter
from pilum.schema.blob_values import Blob, BlobArray, BlobType, blob_array, blob_field

__all__ = [
    "Blob",
    "BlobArray",
    "BlobDescriptor",
    "BlobDescriptorArrayBuilder",
    "BlobType",
    "DedicatedBlobWriter",
    "PackedBlobWriter",
    "blob_array",
    "blob_field",
]
