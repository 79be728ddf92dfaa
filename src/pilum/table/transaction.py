"""Transactions between values and bytes (spec/table.md, section 5.6).

A transaction names the version it was computed on and the operation.  It is stored twice: in
``_transactions/`` and inside the manifest it led to.  Other writers read it to find out whether their own
operation still stands.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pilum.errors import CorruptFileError, InvalidInputError
from pilum.proto.lazy import table_pb2 as pb
from pilum.proto.lazy import wire
from pilum.table.fragment_codec import named
from pilum.table.model import Fragment
from pilum.table.naming import transaction_file_name
from pilum.table.operation_codec import decode_operation, encode_operation
from pilum.table.operations import Append, Opaque, Operation

__all__ = ["Transaction", "decode_transaction", "encode_transaction", "merge_appends", "new_uuid"]


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
    if not isinstance(operation, Opaque):
        encode_operation(operation, message)
    return message.SerializeToString()


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
            operation=decode_operation(message, data),
            properties=dict(message.transaction_properties),
            tag=message.tag,
        )
    except (wire.DecodeError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{where}: the transaction cannot be decoded: {error}") from error
    except CorruptFileError as error:
        raise named(error, where) from error


def merge_appends(transactions: Sequence[Transaction]) -> Transaction:
    """One transaction in place of several that append.

    It is computed on the oldest version that any of them was computed on.

    Raises:
        InvalidInputError: there is none, or one does something else.
    """
    if not transactions:
        raise InvalidInputError("no transactions to commit")
    fragments: list[Fragment] = []
    properties: dict[str, str] = {}
    for one in transactions:
        if not isinstance(one.operation, Append):
            raise InvalidInputError(f"only appends can be committed together, not {one.operation.kind}")
        fragments += one.operation.fragments
        properties |= one.properties
    oldest = min(one.read_version for one in transactions)
    return Transaction(oldest, new_uuid(), Append(tuple(fragments)), properties)
