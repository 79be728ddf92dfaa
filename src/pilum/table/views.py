"""Protobuf views: messages that read only what is asked, for decoding many fragments fast.

A manifest is little more than its fragments, and reading them attribute by attribute from generated messages
costs about 10 µs each.  Wire compatibility allows cheaper types over the same bytes: `SplitManifest` has the
fragments as opaque ``bytes`` (and keeps everything else as unknown fields), and `FragmentsView` reads the
packed number lists as ``bytes``, which are nearly always the same few strings and so are decoded once.

A view drops what it does not declare.  Whether it dropped anything is visible in C: its encoded size differs
from that of the split form, and the caller takes the next more general way.  The same comparison catches
legal but unusual encodings.  `SimpleFragments` is the narrowest view: one data file for each fragment, which
saves a list access (1 µs), and no base paths.

`VersionView` is what a list of versions asks of a manifest, `FragmentIds` what patching a long list of fragments
does; both leave the rest unread.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from pilum import imports

__all__ = ["Views", "views"]

_NAMES = (
    "google.protobuf.descriptor_pb2",
    "google.protobuf.descriptor_pool",
    "google.protobuf.message_factory",
)


class Views(NamedTuple):
    """The view classes; generated at run time, hence untyped."""

    split_manifest: Any
    simple_fragments: Any
    fragments: Any
    version: Any
    fragment_id: Any
    fragment_ids: Any


@functools.cache
def views() -> Views:
    """The view classes, built on first use (0.3 ms)."""
    imports.load_all(_NAMES)
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="pilum/table/views.proto", package="pilum.views", syntax="proto3"
    )

    def message(name: str, *declared: tuple[int, str, int, str]) -> None:
        added = file.message_type.add(name=name)
        for number, field_name, kind, extra in declared:
            entry = added.field.add(name=field_name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
            if extra.startswith("repeated"):
                entry.label = kinds.LABEL_REPEATED
            elif extra == "optional":
                entry.proto3_optional = True
                entry.oneof_index = len(added.oneof_decl)
                added.oneof_decl.add(name=f"_{field_name}")
            if kind == kinds.TYPE_MESSAGE:
                entry.type_name = ".pilum.views." + extra.removeprefix("repeated ")

    message("SplitManifest", (2, "fragments", kinds.TYPE_BYTES, "repeated"))
    message("Timestamp", (1, "seconds", kinds.TYPE_INT64, ""), (2, "nanos", kinds.TYPE_INT32, ""))
    message(
        "VersionView",
        (2, "fragments", kinds.TYPE_BYTES, "repeated"),
        (3, "version", kinds.TYPE_UINT64, ""),
        (7, "timestamp", kinds.TYPE_MESSAGE, "Timestamp"),
        (9, "reader_flags", kinds.TYPE_UINT64, ""),
        (10, "writer_flags", kinds.TYPE_UINT64, ""),
        (22, "fragment_tree", kinds.TYPE_BYTES, "optional"),
    )
    message(
        "FragmentId",
        (1, "id", kinds.TYPE_UINT64, ""),
        (3, "deletion_file", kinds.TYPE_BYTES, ""),
        (12, "hidden_ids", kinds.TYPE_BYTES, "optional"),
        (13, "hidden_updated", kinds.TYPE_BYTES, "optional"),
        (14, "hidden_created", kinds.TYPE_BYTES, "optional"),
    )
    message("FragmentIds", (2, "fragments", kinds.TYPE_MESSAGE, "repeated FragmentId"))
    data_file = (
        (1, "path", kinds.TYPE_STRING, ""),
        (2, "fields", kinds.TYPE_BYTES, ""),
        (3, "column_indices", kinds.TYPE_BYTES, ""),
        (4, "major", kinds.TYPE_UINT32, ""),
        (5, "minor", kinds.TYPE_UINT32, ""),
        (6, "size", kinds.TYPE_UINT64, ""),
    )
    fragment = (
        (1, "id", kinds.TYPE_UINT64, ""),
        (3, "deletion_file", kinds.TYPE_BYTES, ""),
        (4, "physical_rows", kinds.TYPE_UINT64, ""),
        (5, "row_ids", kinds.TYPE_BYTES, ""),
        (7, "last_updated_at", kinds.TYPE_BYTES, ""),
        (9, "created_at", kinds.TYPE_BYTES, ""),
    )
    message("SimpleFile", *data_file)
    message("SimpleFragment", (2, "file", kinds.TYPE_MESSAGE, "SimpleFile"), *fragment)
    message("SimpleFragments", (2, "fragments", kinds.TYPE_MESSAGE, "repeated SimpleFragment"))
    message("DataFileView", *data_file, (7, "base_id", kinds.TYPE_UINT32, "optional"))
    message("FragmentView", (2, "files", kinds.TYPE_MESSAGE, "repeated DataFileView"), *fragment)
    message("FragmentsView", (2, "fragments", kinds.TYPE_MESSAGE, "repeated FragmentView"))

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def of(name: str) -> Any:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"pilum.views.{name}"))

    return Views(
        of("SplitManifest"),
        of("SimpleFragments"),
        of("FragmentsView"),
        of("VersionView"),
        of("FragmentId"),
        of("FragmentIds"),
    )
