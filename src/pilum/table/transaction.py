"""Transactions between values and bytes (spec/table.md, section 5.6).

A transaction names the version it was computed on and the operation.  It is stored twice: in
``_transactions/`` and inside the manifest it led to.  Other writers read it to find out whether their own
operation still stands.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from pilum.errors import CorruptFileError, UnsupportedError
from pilum.proto import table_pb2 as pb
from pilum.schema import Schema
from pilum.table.codec import decode_base_path, encode_base_path
from pilum.table.fragment_codec import decode_fragment, encode_fragment, named
from pilum.table.model import Fragment
from pilum.table.naming import transaction_file_name
from pilum.table.operations import UNKNOWN, Append, Delete, Opaque, Operation, Overwrite, Restore

__all__ = ["Transaction", "decode_transaction", "encode_transaction", "new_uuid"]


@dataclass(frozen=True, slots=True)
class Transaction:
    """An operation and the version it was computed on.

    Attributes:
        read_version: 0 when the operation creates the table.
        uuid: makes the transaction recognisable, lower-case with hyphens.
        operation: what it does.
        properties: free entries of the user, such as ``__lance_commit_message``.
        tag: unused by the format.
    """

    read_version: int
    uuid: str
    operation: Operation
    properties: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""

    @property
    def file_name(self) -> str:
        """Name of its file in ``_transactions/``."""
        return transaction_file_name(self.read_version, self.uuid)


def new_uuid() -> str:
    """A fresh transaction id."""
    return str(uuid.uuid4())


def encode_transaction(transaction: Transaction) -> bytes:
    """The encoded message."""
    operation = transaction.operation
    if isinstance(operation, Opaque):
        message = pb.Transaction.FromString(operation.message)
    else:
        message = pb.Transaction()
    message.read_version = transaction.read_version
    message.uuid = transaction.uuid
    message.tag = transaction.tag
    message.ClearField("transaction_properties")
    message.transaction_properties.update(transaction.properties)
    if isinstance(operation, Append):
        message.append.SetInParent()
        message.append.fragments.extend(_messages(operation.fragments))
    elif isinstance(operation, Delete):
        message.delete.SetInParent()
        message.delete.updated_fragments.extend(_messages(operation.updated_fragments))
        message.delete.deleted_fragment_ids.extend(operation.deleted_fragment_ids)
        message.delete.predicate = operation.predicate
    elif isinstance(operation, Overwrite):
        message.overwrite.SetInParent()
        message.overwrite.fragments.extend(_messages(operation.fragments))
        message.overwrite.schema.extend(operation.schema.to_proto())
        message.overwrite.config_upsert_values.update(operation.config_upserts)
        message.overwrite.initial_bases.extend([encode_base_path(base) for base in operation.initial_bases])
    elif isinstance(operation, Restore):
        message.restore.SetInParent()
        message.restore.version = operation.version
    elif not isinstance(operation, Opaque):
        raise UnsupportedError(f"a {type(operation).__name__} operation cannot be stored")
    return message.SerializeToString()


def _messages(fragments: tuple[Fragment, ...]) -> list[pb.DataFragment]:
    return [pb.DataFragment.FromString(encode_fragment(fragment)) for fragment in fragments]


def decode_transaction(data: bytes, where: str) -> Transaction:
    """Decode a transaction message.

    Raises:
        CorruptFileError: the bytes are not such a message.
    """
    try:
        message = pb.Transaction.FromString(data)
        return Transaction(
            read_version=message.read_version,
            uuid=message.uuid,
            operation=_decode_operation(message, data),
            properties=dict(message.transaction_properties),
            tag=message.tag,
        )
    except (DecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{where}: the transaction cannot be decoded: {error}") from error
    except CorruptFileError as error:
        raise named(error, where) from error


def _decode_operation(message: pb.Transaction, data: bytes) -> Operation:
    kind = message.WhichOneof("operation")
    if kind == "append":
        return Append(_fragments(message.append.fragments))
    if kind == "delete":
        delete = message.delete
        return Delete(
            _fragments(delete.updated_fragments), tuple(delete.deleted_fragment_ids), delete.predicate
        )
    if kind == "overwrite":
        overwrite = message.overwrite
        try:
            schema = Schema.from_proto(overwrite.schema)
        except UnsupportedError:
            return Opaque(kind, data)
        return Overwrite(
            _fragments(overwrite.fragments),
            schema,
            None,
            dict(overwrite.config_upsert_values),
            tuple([decode_base_path(base) for base in overwrite.initial_bases]),
        )
    if kind == "restore":
        return Restore(message.restore.version)
    return Opaque(kind or UNKNOWN, data)


def _fragments(messages: object) -> tuple[Fragment, ...]:
    return tuple([decode_fragment(message) for message in messages])  # type: ignore[attr-defined]
