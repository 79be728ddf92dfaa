"""Arrow ↔ Lance fields and logical types.

`Schema` and `Field` are frozen values: the tree of columns with ids and logical type strings, and
conversions from and to Arrow and protobuf.  `logical_type_of` and `arrow_type_of` translate one
type; `column_indices` numbers the columns of a file;
`with_extensions` turns storage types back into Arrow extension types.  Nothing here reads or writes.
"""

from pilum.schema.blobs import (
    BLOB_DESCRIPTOR,
    PREPARED_BLOB,
    is_descriptor,
    is_prepared,
    prepared_field,
    with_descriptors,
    with_stored_blobs,
)
from pilum.schema.columns import column_fields, column_indices
from pilum.schema.extensions import with_extensions
from pilum.schema.field import Field, Schema, check_names, parse_file_descriptor, split_path
from pilum.schema.logical import arrow_type_of, logical_type_of
from pilum.schema.width import bytes_per_row

__all__ = [
    "BLOB_DESCRIPTOR",
    "PREPARED_BLOB",
    "Field",
    "Schema",
    "arrow_type_of",
    "bytes_per_row",
    "check_names",
    "column_fields",
    "column_indices",
    "is_descriptor",
    "is_prepared",
    "logical_type_of",
    "parse_file_descriptor",
    "prepared_field",
    "split_path",
    "with_descriptors",
    "with_extensions",
    "with_stored_blobs",
]
