"""Fragments between values and bytes (spec/table.md, section 5.3).

Decoding has two ways to the same values: a fast one over the views of `views`, for fragments that hold
nothing unusual, and a complete one over the generated messages.  Every fragment remembers the bytes it came
from, so that a commit copies the fragments it does not touch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pilum.errors import CorruptFileError, UnsupportedError
from pilum.proto.lazy import table_pb2 as pb
from pilum.proto.lazy import wire
from pilum.table import flags
from pilum.table.model import (
    ARROW_ARRAY,
    BITMAP,
    DataFile,
    DeletionFile,
    Fragment,
    fast_constructor,
    file_format_version,
)
from pilum.table.views import views

__all__ = [
    "PackedNumbers",
    "check_fragments",
    "decode_data_file",
    "decode_fragment",
    "decode_fragments",
    "encode_data_file",
    "encode_fragment",
    "named",
]

_new_fragment: Callable[..., Fragment] = fast_constructor(Fragment)
_new_data_file: Callable[..., DataFile] = fast_constructor(DataFile)

_MODELLED = (
    "id",
    "files",
    "deletion_file",
    "physical_rows",
    "inline_row_ids",
    "inline_created_at_versions",
    "inline_last_updated_at_versions",
)


def decode_fragments(encoded: Sequence[bytes], where: str) -> tuple[Fragment, ...]:
    """Decode the fragments of a manifest.

    Raises:
        CorruptFileError: a fragment cannot be decoded.
    """
    try:
        # protobuf reports an invalid string as a UnicodeDecodeError when it is read.
        fast = _decode_plain(encoded)
        if fast is not None:
            return fast
        return tuple([decode_fragment(pb.DataFragment.FromString(one), one) for one in encoded])
    except (wire.DecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{where}: a fragment cannot be decoded: {error}") from error
    except CorruptFileError as error:
        raise named(error, where) from error


def named(error: CorruptFileError | UnsupportedError, where: str) -> CorruptFileError | UnsupportedError:
    """The same error, its message naming the file."""
    return error if where in str(error) else type(error)(f"{where}: {error}")


def _decode_plain(encoded: Sequence[bytes]) -> tuple[Fragment, ...] | None:
    kinds = views()
    split = kinds.split_manifest(fragments=encoded)
    data = split.SerializeToString()
    for kind, files_of in ((kinds.simple_fragments, _single_file), (kinds.fragments, _any_files)):
        view = kind.FromString(data)
        view.DiscardUnknownFields()
        if view.ByteSize() == len(data):
            return _read_view(encoded, view, files_of(PackedNumbers()))
    return None


def _read_view(
    encoded: Sequence[bytes], view: Any, files_of: Callable[[Any], tuple[DataFile, ...]]
) -> tuple[Fragment, ...]:
    return tuple(
        [
            _new_fragment(
                one.id,
                files_of(one),
                one.physical_rows,
                _decode_deletion_file(pb.DeletionFile.FromString(deletion))
                if (deletion := one.deletion_file)
                else None,
                one.row_ids or None,
                one.created_at or None,
                one.last_updated_at or None,
                b"",
                raw,
            )
            for raw, one in zip(encoded, view.fragments, strict=True)
        ]
    )


def _single_file(numbers: PackedNumbers) -> Callable[[Any], tuple[DataFile, ...]]:
    def files(fragment: Any) -> tuple[DataFile, ...]:
        file = fragment.file
        path = file.path
        if not path and not fragment.HasField("file"):
            return ()
        return (
            _new_data_file(
                path,
                numbers[file.fields],
                numbers[file.column_indices],
                (file.major, file.minor),
                file.size,
                None,
            ),
        )

    return files


def _any_files(numbers: PackedNumbers) -> Callable[[Any], tuple[DataFile, ...]]:
    def files(fragment: Any) -> tuple[DataFile, ...]:
        return tuple(
            [
                _new_data_file(
                    file.path,
                    numbers[file.fields],
                    numbers[file.column_indices],
                    (file.major, file.minor),
                    file.size,
                    file.base_id if file.HasField("base_id") else None,
                )
                for file in fragment.files
            ]
        )

    return files


class PackedNumbers(dict[bytes, tuple[int, ...]]):
    """Packed int32 lists by their bytes, each decoded once; equal lists share one tuple."""

    def __missing__(self, packed: bytes) -> tuple[int, ...]:
        message = pb.DataFile.FromString(b"\x12" + _varint(len(packed)) + packed)
        result = self[packed] = tuple(message.fields)
        return result


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_fragment(message: pb.DataFragment, encoded: bytes = b"") -> Fragment:
    """Decode one fragment completely; what has no attribute goes to ``extra``."""
    rest = pb.DataFragment()
    rest.CopyFrom(message)
    for name in _MODELLED:
        rest.ClearField(name)  # type: ignore[arg-type]
    return _new_fragment(
        message.id,
        tuple([decode_data_file(file) for file in message.files]),
        message.physical_rows,
        _decode_deletion_file(message.deletion_file) if message.HasField("deletion_file") else None,
        message.inline_row_ids if message.HasField("inline_row_ids") else None,
        message.inline_created_at_versions if message.HasField("inline_created_at_versions") else None,
        message.inline_last_updated_at_versions
        if message.HasField("inline_last_updated_at_versions")
        else None,
        rest.SerializeToString(),
        encoded or message.SerializeToString(),
    )


def decode_data_file(message: pb.DataFile) -> DataFile:
    """Decode one data file entry."""
    return DataFile(
        path=message.path,
        fields=tuple(message.fields),
        column_indices=tuple(message.column_indices),
        version=(message.file_major_version, message.file_minor_version),
        size=message.file_size_bytes,
        base_id=message.base_id if message.HasField("base_id") else None,
    )


def _decode_deletion_file(message: pb.DeletionFile) -> DeletionFile:
    if message.file_type not in (ARROW_ARRAY, BITMAP):
        raise CorruptFileError(f"unknown type {message.file_type} of a deletion file")
    return DeletionFile(
        file_type=int(message.file_type),
        read_version=message.read_version,
        id=message.id,
        num_deleted_rows=message.num_deleted_rows,
        base_id=message.base_id if message.HasField("base_id") else None,
    )


def encode_fragment(fragment: Fragment) -> bytes:
    """The encoded message of a fragment: the very bytes it was read from when it is unchanged."""
    if fragment.encoded:
        return fragment.encoded
    message = pb.DataFragment.FromString(fragment.extra)
    message.id = fragment.id
    message.physical_rows = fragment.physical_rows
    for file in fragment.files:
        message.files.append(encode_data_file(file))
    if fragment.deletion_file is not None:
        _encode_deletion_file(fragment.deletion_file, message.deletion_file)
    if fragment.row_ids is not None:
        message.inline_row_ids = fragment.row_ids
    if fragment.created_at is not None:
        message.inline_created_at_versions = fragment.created_at
    if fragment.last_updated_at is not None:
        message.inline_last_updated_at_versions = fragment.last_updated_at
    return message.SerializeToString()


def encode_data_file(file: DataFile) -> pb.DataFile:
    """The message of a data file entry."""
    message = pb.DataFile(
        path=file.path,
        fields=file.fields,
        column_indices=file.column_indices,
        file_major_version=file.version[0],
        file_minor_version=file.version[1],
        file_size_bytes=file.size,
    )
    if file.base_id is not None:
        message.base_id = file.base_id
    return message


def _encode_deletion_file(file: DeletionFile, message: pb.DeletionFile) -> None:
    message.file_type = file.file_type  # type: ignore[assignment]
    message.read_version = file.read_version
    message.id = file.id
    message.num_deleted_rows = file.num_deleted_rows
    if file.base_id is not None:
        message.base_id = file.base_id


def check_fragments(
    fragments: Sequence[Fragment],
    data_version: tuple[int, int],
    reader_flags: int,
    writer_flags: int,
    where: str,
) -> None:
    """Check the rules that a list of fragments keeps (sections 5.3, 6 and 8).

    Raises:
        CorruptFileError: a rule is broken; the message names the fragment.
    """
    mixed = bool(reader_flags & writer_flags & flags.MIXED_FILE_VERSIONS)
    # Consecutive fragments share the tuples of their files, so the rules about one file are checked once.
    checked: set[tuple[Any, ...]] = set()
    previous = -1
    for fragment in fragments:
        # Release 0.16 gave an id twice when it mixed file versions in a table that calls itself 0.1.
        twice = previous == fragment.id and data_version == (0, 1)
        if not (previous < fragment.id < 1 << 32 or twice):
            raise CorruptFileError(
                f"{where}: fragment id {fragment.id} after {previous}; ids must ascend and fit 32 bits"
            )
        previous = fragment.id
        for file in fragment.files:
            shape = (file.version, file.fields, file.column_indices)
            if shape not in checked:
                _check_file(
                    file, data_version, mixed, f"{where}: data file {file.path} in fragment {fragment.id}"
                )
                checked.add(shape)
        deletion = fragment.deletion_file
        if (
            deletion is not None
            and fragment.physical_rows
            and deletion.num_deleted_rows > fragment.physical_rows
        ):
            raise CorruptFileError(
                f"{where}: fragment {fragment.id} has {deletion.num_deleted_rows} deleted of "
                f"{fragment.physical_rows} rows"
            )
        if fragment.extra or (reader_flags & flags.STABLE_ROW_IDS and fragment.row_ids is None):
            _check_row_ids(fragment, reader_flags, where)


def _check_file(file: DataFile, data_version: tuple[int, int], mixed: bool, where: str) -> None:
    try:
        version = file_format_version(file.version)
    except CorruptFileError as error:
        raise CorruptFileError(f"{where}: {error}") from None
    # A table may call itself 0.1 and hold 2.0 files, a fault of release 0.16: every file says itself what it is.
    misnamed = data_version == (0, 1) and version == (2, 0)
    if version != data_version and not misnamed and (not mixed or (0, 1) in (version, data_version)):
        raise CorruptFileError(
            f"{where} has version {version[0]}.{version[1]}, the table has {data_version[0]}.{data_version[1]}"
        )
    if version != (0, 1) and len(file.column_indices) < len(file.fields):
        raise CorruptFileError(
            f"{where} names {len(file.fields)} fields but only {len(file.column_indices)} column indices"
        )


def _check_row_ids(fragment: Fragment, reader_flags: int, where: str) -> None:
    rest = pb.DataFragment.FromString(fragment.extra)
    if rest.overlays and not reader_flags & flags.DATA_OVERLAYS:
        raise CorruptFileError(
            f"{where}: fragment {fragment.id} has data overlays without their feature flag"
        )
    if not reader_flags & flags.STABLE_ROW_IDS or fragment.row_ids is not None:
        return
    kind = rest.WhichOneof("row_id_sequence")
    if kind is None:
        raise CorruptFileError(f"{where}: stable row ids are on, but fragment {fragment.id} has none")
