"""The manifest and index messages between values and bytes (spec/table.md, sections 5.1 and 5.4).

Decoding checks what a reader must refuse: feature flags, unknown format versions, fields without parent,
fragments out of order.  Encoding starts from what was carried along, so that nothing pilum does not interpret
is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pilum.errors import CorruptFileError, UnsupportedError
from pilum.proto.lazy import file_pb2, wire
from pilum.proto.lazy import table_pb2 as pb
from pilum.schema import Schema
from pilum.table import flags, indices
from pilum.table.fragment_codec import check_fragments, decode_fragments, encode_fragment, named
from pilum.table.model import BasePath, Fragment, IndexMetadata, Manifest, WriterVersion, file_format_version
from pilum.table.views import views

__all__ = [
    "DATA_VERSIONS",
    "ManifestMessage",
    "decode_base_path",
    "decode_indices",
    "decode_manifest",
    "defer_fragments",
    "encode_base_path",
    "encode_indices",
    "encode_manifest",
    "parse_data_version",
    "split_manifest",
]

# The strings that `data_format.version` may hold; aliases such as "stable" are for callers only.
DATA_VERSIONS: Mapping[str, tuple[int, int]] = {
    "0.1": (0, 1),
    "2.0": (2, 0),
    "2.1": (2, 1),
    "2.2": (2, 2),
    "2.3": (2, 3),
}

# Up to this many fragments are decoded and checked when the manifest is opened (3 µs each), so that a broken
# table is refused there.  Longer lists are decoded when they are first used: 100,000 fragments take 0.3 s.
_EAGER_FRAGMENTS = 4096

_MODELLED = (
    "fields",
    "schema_metadata",
    "version",
    "index_section",
    "timestamp",
    "reader_feature_flags",
    "writer_feature_flags",
    "max_fragment_id",
    "transaction_file",
    "writer_version",
    "next_row_id",
    "data_format",
    "config",
    "base_paths",
    "table_metadata",
    "branch",
    "legacy_transaction_section",
    "transaction_section",
)

_NANOSECONDS = 1_000_000_000


def parse_data_version(text: str, where: str) -> tuple[int, int]:
    """The file format version that a manifest's ``data_format`` names.

    Raises:
        CorruptFileError: the string is not one of the five allowed ones.
    """
    version = DATA_VERSIONS.get(text)
    if version is None:
        raise CorruptFileError(
            f"{where}: unknown data file version {text!r} in the manifest; expected one of {', '.join(DATA_VERSIONS)}"
        )
    return version


class ManifestMessage(NamedTuple):
    """A manifest message with its fragments split off and left encoded."""

    message: pb.Manifest
    fragments: list[bytes]

    @property
    def index_section(self) -> int | None:
        """File offset of the index section; 0 is a valid one."""
        return self.message.index_section if self.message.HasField("index_section") else None

    @property
    def transaction_section(self) -> int | None:
        """File offset of the inline transaction, as written by release 14 or by earlier ones."""
        if self.message.HasField("transaction_section"):
            return self.message.transaction_section
        if self.message.HasField("legacy_transaction_section"):
            return self.message.legacy_transaction_section
        return None


def split_manifest(data: bytes, where: str) -> ManifestMessage:
    """Parse a manifest message but for its fragments.

    Raises:
        CorruptFileError: the bytes are not such a message.
    """
    try:
        split = views().split_manifest.FromString(data)
        fragments = list(split.fragments)
        split.ClearField("fragments")
        return ManifestMessage(pb.Manifest.FromString(split.SerializeToString()), fragments)
    except (wire.DecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{where}: the manifest cannot be decoded: {error}") from error


def decode_manifest(
    parts: ManifestMessage, indices: tuple[IndexMetadata, ...], where: str, *, lazy: bool = False
) -> Manifest:
    """Decode a manifest message.  ``parts.message`` is consumed.

    Args:
        parts: the message.
        indices: decoded index section.
        where: path of the file, for messages.
        lazy: decode and check fragments on first use, however few there are.

    Raises:
        CorruptFileError: the message is not a valid manifest.
        UnsupportedError: it needs features that pilum does not have.
    """
    try:
        return _decode(parts.message, parts.fragments, indices, where, lazy)
    except (wire.DecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{where}: the manifest cannot be decoded: {error}") from error
    except (CorruptFileError, UnsupportedError) as error:
        raise named(error, where) from error


def _decode(
    message: pb.Manifest, encoded: list[bytes], indices: tuple[IndexMetadata, ...], where: str, lazy: bool
) -> Manifest:
    reader_flags, writer_flags = message.reader_feature_flags, message.writer_feature_flags
    flags.check_readable(reader_flags, writer_flags, where)
    if message.HasField("fragment_tree"):
        raise UnsupportedError(f"{where}: pilum cannot read fragment trees")
    if message.version < 1:
        raise CorruptFileError(f"{where}: version {message.version} in the manifest; versions start at 1")
    # Fields and metadata have the same numbers in both messages, so either can read what the other wrote.
    # Deterministic, because equal bytes give the same schema object.
    stored = file_pb2.Schema(fields=message.fields, metadata=message.schema_metadata)
    schema_bytes = stored.SerializeToString(deterministic=True)
    schema = Schema.from_proto_bytes(schema_bytes)

    manifest = Manifest(
        version=message.version,
        schema=schema,
        timestamp_ns=message.timestamp.seconds * _NANOSECONDS + message.timestamp.nanos,
        config=dict(message.config),
        table_metadata=dict(message.table_metadata),
        data_version=_data_version(message, encoded, where),
        max_fragment_id=message.max_fragment_id if message.HasField("max_fragment_id") else None,
        next_row_id=message.next_row_id,
        reader_flags=reader_flags,
        writer_flags=writer_flags,
        base_paths=tuple([decode_base_path(base) for base in message.base_paths]),
        branch=message.branch if message.HasField("branch") else None,
        transaction_file=message.transaction_file,
        writer_version=_decode_writer(message),
        indices=indices,
        stored_schema=(schema, schema_bytes),
    )
    for name in _MODELLED:
        message.ClearField(name)  # type: ignore[arg-type]
    object.__setattr__(manifest, "extra", message.SerializeToString())

    if lazy or len(encoded) > _EAGER_FRAGMENTS:
        defer_fragments(manifest, encoded, where)
    else:
        fragments = decode_fragments(encoded, where)
        check_fragments(fragments, manifest.data_version, reader_flags, writer_flags, where)
        manifest.keep_fragments(fragments, encoded)
    return manifest


def defer_fragments(
    manifest: Manifest, encoded: Sequence[bytes], where: str, known: Sequence[Fragment] = ()
) -> None:
    """Give a new manifest its fragments encoded; they are decoded and checked on first use.

    Args:
        manifest: the new manifest.
        encoded: its fragments.
        where: path of the file, for messages.
        known: fragments of another version; those with the same message are not decoded again.
    """
    data_version, flags_ = manifest.data_version, (manifest.reader_flags, manifest.writer_flags)

    def decode() -> tuple[Fragment, ...]:
        ready = {one.encoded: one for one in known if one.encoded}
        missing = [one for one in encoded if one not in ready] if ready else encoded
        fragments = decode_fragments(missing, where)
        if ready:
            ready.update(zip(missing, fragments, strict=True))
            fragments = tuple([ready[one] for one in encoded])
        check_fragments(fragments, data_version, *flags_, where)
        return fragments

    manifest.defer_fragments(decode, encoded)


def _data_version(message: pb.Manifest, encoded: list[bytes], where: str) -> tuple[int, int]:
    if message.HasField("data_format"):
        if message.data_format.file_format != "lance":
            raise CorruptFileError(f"{where}: unknown data file format {message.data_format.file_format!r}")
        version = parse_data_version(message.data_format.version, where)
        return _corrected(version, encoded) if version == (0, 1) else version
    # Tables older than the field: any data file tells, an empty one is told by a flag.
    for one in encoded:
        for file in pb.DataFragment.FromString(one).files:
            return file_format_version((file.file_major_version, file.file_minor_version))
    return (2, 0) if message.writer_feature_flags & flags.V2_FORMAT else (0, 1)


def _corrected(version: tuple[int, int], encoded: list[bytes]) -> tuple[int, int]:
    """Release 0.16 could name a table of 2.0 files 0.1; what all files agree on is what the table is."""
    found = {
        file_format_version((file.file_major_version, file.file_minor_version))
        for one in encoded
        for file in pb.DataFragment.FromString(one).files
    }
    return (2, 0) if found == {(2, 0)} else version


def _decode_writer(message: pb.Manifest) -> WriterVersion | None:
    if not message.HasField("writer_version"):
        return None
    writer = message.writer_version
    return WriterVersion(
        writer.library,
        writer.version,
        writer.prerelease if writer.HasField("prerelease") else None,
        writer.build_metadata if writer.HasField("build_metadata") else None,
    )


def decode_base_path(message: pb.BasePath) -> BasePath:
    """Decode one base path."""
    return BasePath(
        message.id, message.path, message.is_dataset_root, message.name if message.HasField("name") else None
    )


def encode_base_path(base: BasePath) -> pb.BasePath:
    """The message of a base path."""
    message = pb.BasePath(id=base.id, path=base.path, is_dataset_root=base.is_dataset_root)
    if base.name is not None:
        message.name = base.name
    return message


def encode_manifest(
    manifest: Manifest,
    *,
    index_section: int | None = None,
    transaction_section: int | None = None,
    dictionaries: Mapping[int, tuple[int, int]] | None = None,
) -> bytes:
    """The encoded message of a manifest.

    Args:
        manifest: the value.
        index_section: file offset of the index section, None without indices.
        transaction_section: file offset of the inline transaction, None without.
        dictionaries: file offset and length of the values of dictionary fields, by field id (format 0.1).
    """
    message = pb.Manifest.FromString(manifest.extra)
    stored = manifest.stored_schema
    if stored is not None and stored[0] is manifest.schema:
        message.MergeFromString(stored[1])
    else:
        message.fields.extend(manifest.schema.to_proto())
        for key, value in manifest.schema.metadata.items():
            message.schema_metadata[key] = value.encode()
    if manifest.data_version == (0, 1):
        for one in message.fields:
            if one.HasField("dictionary"):
                one.dictionary.offset, one.dictionary.length = (dictionaries or {}).get(one.id, (0, 0))
    message.version = manifest.version
    seconds, nanos = divmod(manifest.timestamp_ns, _NANOSECONDS)
    message.timestamp.seconds = seconds
    message.timestamp.nanos = nanos
    message.reader_feature_flags = manifest.reader_flags
    message.writer_feature_flags = manifest.writer_flags
    if manifest.max_fragment_id is not None:
        message.max_fragment_id = manifest.max_fragment_id
    message.transaction_file = manifest.transaction_file
    if manifest.writer_version is not None:
        _encode_writer(manifest.writer_version, message.writer_version)
    message.next_row_id = manifest.next_row_id
    message.data_format.file_format = "lance"
    message.data_format.version = f"{manifest.data_version[0]}.{manifest.data_version[1]}"
    message.config.update(manifest.config)
    message.base_paths.extend([encode_base_path(base) for base in manifest.base_paths])
    message.table_metadata.update(manifest.table_metadata)
    if manifest.branch is not None:
        message.branch = manifest.branch
    if index_section is not None:
        message.index_section = index_section
    if transaction_section is not None:
        message.transaction_section = transaction_section
    ready = manifest.encoded_fragments
    if ready is None:
        ready = [encode_fragment(fragment) for fragment in manifest.fragments]
    fragments = views().split_manifest(fragments=ready)
    # Concatenated messages merge, and the order of fields on the wire is free.
    encoded: bytes = message.SerializeToString() + fragments.SerializeToString()
    return encoded


def _encode_writer(writer: WriterVersion, message: pb.Manifest.WriterVersion) -> None:
    message.library = writer.library
    message.version = writer.version
    if writer.prerelease is not None:
        message.prerelease = writer.prerelease
    if writer.build_metadata is not None:
        message.build_metadata = writer.build_metadata


def decode_indices(data: bytes, where: str) -> tuple[IndexMetadata, ...]:
    """Decode an index section; each entry keeps its encoded form.

    Raises:
        CorruptFileError: the message cannot be decoded.
    """
    try:
        section = pb.IndexSection.FromString(data)
        return tuple([indices.decode_index(message) for message in section.indices])
    except (wire.DecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{where}: the index section cannot be decoded: {error}") from error


def encode_indices(indices: tuple[IndexMetadata, ...]) -> bytes:
    """The encoded index section."""
    section = pb.IndexSection()
    for index in indices:
        section.indices.add().ParseFromString(index.message)
    return section.SerializeToString()
