"""Arrow ↔ Lance fields and logical types.

`Schema` and `Field` are frozen values: the tree of columns with ids and logical type strings, and
conversions from and to Arrow and protobuf.  `logical_type_of` and `arrow_type_of` translate one
type; `column_indices` numbers the columns of a file;
`with_extensions` turns storage types back into Arrow extension types.  Nothing here reads or writes.
"""

from pilum.schema.blobs import BLOB_DESCRIPTOR, is_descriptor, with_descriptors
from pilum.schema.columns import column_fields, column_indices
from pilum.schema.extensions import with_extensions
from pilum.schema.field import Field, Schema, check_names, parse_file_descriptor, split_path
from pilum.schema.logical import arrow_type_of, logical_type_of
from pilum.schema.width import bytes_per_row

__all__ = [
    "BLOB_DESCRIPTOR",
    "Field",
    "Schema",
    "arrow_type_of",
    "bytes_per_row",
    "check_names",
    "column_fields",
    "column_indices",
    "is_descriptor",
    "logical_type_of",
    "parse_file_descriptor",
    "split_path",
    "with_descriptors",
    "with_extensions",
]
