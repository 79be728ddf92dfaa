"""Protocol buffer messages of the format, written from the specification's tables.

    file.proto             schema of files and tables          package lance.file
    container.proto        column metadata (public in file)    package lance.file.v2
    encodings.proto        page layouts and codecs             package lance.encodings21
    column_encoding.proto  column encoding (public above)      package lance.encodings
    table.proto            manifest, fragments, transactions   package lance.table
    array_encodings.proto  page encodings of format 2.0        package lance.encodings
    legacy_file.proto      metadata of format 0.1              package lance.file (0.1)

The `.proto` files are the source; `make proto` writes the `*_pb2` modules and their stubs.
`file_pb2` also offers the messages of `container.proto`, `encodings_pb2` those of
`column_encoding.proto`.  Nothing is imported here: protobuf descriptors load with the first
module that needs them (``from pilum.proto import file_pb2``).  Must not know: anything else
of pilum.
"""
