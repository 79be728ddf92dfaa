"""Calls that users of Lance know and pilum does not have yet.

Each raises `UnsupportedError` (a `NotImplementedError`) that names the feature, so that a program fails where it
asks for it and not somewhere behind.  When a feature is built its line here goes.  Both doors, synchronous and
asynchronous, inherit the same classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from pilum.errors import UnsupportedError

__all__ = ["NotBuilt", "UnbuiltDataset"]


class NotBuilt:
    """A method that takes anything and says that its feature is not built.

    Args:
        feature: what is missing, in words.
    """

    def __init__(self, feature: str) -> None:
        self._feature = feature
        self._name = feature
        self.__doc__ = f"Not supported yet: {feature}."

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        return self._refuse

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError(f"{self._name}: not supported yet: {self._feature}")


class UnbuiltDataset:
    """What a dataset does not do yet."""

    centroids = NotBuilt("vector indices")
    commit_existing_index_segments = NotBuilt("building indices")
    create_index = NotBuilt("building vector indices")
    create_index_uncommitted = NotBuilt("building indices")
    create_scalar_index = NotBuilt("building scalar indices")
    drop_index = NotBuilt("dropping indices")
    from_pydantic_model = NotBuilt("pydantic")
    get_ivf_model = NotBuilt("vector indices")
    initialize_mem_wal = NotBuilt("the write-ahead log")
    mem_wal_index_details = NotBuilt("the write-ahead log")
    mem_wal_writer = NotBuilt("the write-ahead log")
    merge_existing_index_segments = NotBuilt("building indices")
    merge_index_metadata = NotBuilt("building indices")
    merge_insert = NotBuilt("merge insert")
    prewarm_index = NotBuilt("loading indices")
    read_blob_ranges = NotBuilt("reading blobs")
    read_blobs = NotBuilt("reading blobs")
    remap_row_addrs = NotBuilt("translating row addresses")
    sql = NotBuilt("SQL queries")
    take_blobs = NotBuilt("reading blobs")
    # What a pyarrow dataset has beside what a Lance dataset has.
    filter = NotBuilt("filtered views; pass filter= to a scan")
    join = NotBuilt("joins")
    join_asof = NotBuilt("joins")
    replace_schema = NotBuilt("replacing the schema; see update_schema_metadata and update_field_metadata")
    sort_by = NotBuilt("sorted views")
