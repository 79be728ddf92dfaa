"""Single files with the arguments of the reference: namespaces are refused, hints about buffers accepted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pilum.dataset.options import refuse_namespaces
from pilum.file import synchronous

__all__ = ["LanceFileReader", "LanceFileSession", "LanceFileWriter"]


def _refuse(namespace_client: Any, table_id: Any) -> None:
    named = namespace_client is not None or table_id is not None
    refuse_namespaces(None if named else "", namespace_client, table_id)


class LanceFileReader(synchronous.LanceFileReader):
    """See `pilum.LanceFileReader`."""

    __slots__ = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        storage_options: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        *,
        namespace_client: Any = None,
        table_id: list[str] | None = None,
    ) -> None:
        _refuse(namespace_client, table_id)
        super().__init__(path, storage_options, columns)


class LanceFileWriter(synchronous.LanceFileWriter):
    """See `pilum.LanceFileWriter`."""

    __slots__ = ()

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: pa.Schema | None = None,
        *,
        data_cache_bytes: int | None = None,
        version: str | None = None,
        storage_options: Mapping[str, str] | None = None,
        namespace_client: Any = None,
        table_id: list[str] | None = None,
        max_page_bytes: int | None = None,
        **kwargs: Any,
    ) -> None:
        _refuse(namespace_client, table_id)
        del kwargs  # the reference ignores what it does not know
        super().__init__(
            path,
            schema,
            data_cache_bytes=data_cache_bytes,
            version=version,
            storage_options=storage_options,
            max_page_bytes=max_page_bytes,
        )


class LanceFileSession(synchronous.LanceFileSession):
    """See `pilum.LanceFileSession`."""

    def __init__(
        self,
        base_path: str | os.PathLike[str],
        storage_options: Mapping[str, str] | None = None,
        namespace_client: Any = None,
        table_id: list[str] | None = None,
    ) -> None:
        _refuse(namespace_client, table_id)
        super().__init__(base_path, storage_options)
