"""Options of opening and writing, as users of Lance know them, checked (spec/api.md, sections 2 and 3).

What is not built is refused by name; hints that change no rows are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pilum.dataset import committing, targets, writing
from pilum.dataset.configuring import auto_cleanup_config
from pilum.errors import InvalidInputError, UnsupportedError
from pilum.table import NamingScheme

if TYPE_CHECKING:
    from pilum.dataset.targets import Targets
    from pilum.dataset.writing import WriteOptions
    from pilum.table import CommitLock

__all__ = ["check_read_params", "refuse_namespaces", "write_options"]


def refuse_namespaces(uri: Any, namespace_client: Any, table_id: Any) -> None:
    """Namespaces are not supported; without one there must be an address.

    Raises:
        InvalidInputError: both are given, or none.
        UnsupportedError: a namespace is given.
    """
    if namespace_client is None and table_id is None:
        if uri is None:
            raise InvalidInputError("no dataset is named: pass uri")
        return
    if uri is not None:
        raise InvalidInputError("pass either uri, or namespace_client and table_id")
    raise UnsupportedError("namespace_client: namespaces are not supported yet")


def check_read_params(read_params: Mapping[str, Any] | None) -> None:
    """Known are ``cache_repetition_index`` and ``validate_on_decode``; pilum always does both.

    Raises:
        InvalidInputError: another one.
    """
    unknown = set(read_params or {}) - {"cache_repetition_index", "validate_on_decode"}
    if unknown:
        raise InvalidInputError(f"read_params: unknown parameter {min(unknown)!r}")


def write_options(
    mode: str,
    *,
    max_rows_per_file: int = 1 << 20,
    max_rows_per_group: int | None = 1024,
    max_bytes_per_file: int = 90 << 30,
    data_cache_bytes: int | None = None,
    max_page_bytes: int | None = None,
    commit_lock: CommitLock | None = None,
    progress: Any = None,
    data_storage_version: str | None = None,
    use_legacy_format: bool | None = None,
    enable_v2_manifest_paths: bool = True,
    enable_stable_row_ids: bool = False,
    auto_cleanup_options: Mapping[str, Any] | None = None,
    commit_message: str | None = None,
    transaction_properties: Mapping[str, str] | None = None,
    initial_bases: Any = None,
    target_bases: Any = None,
    target_all_bases: bool | None = None,
    external_blob_mode: str = "reference",
    allow_external_blob_outside_bases: bool = False,
    blob_pack_file_size_threshold: int | None = None,
) -> WriteOptions:
    """The keyword options of a write, checked; see `pilum.write_dataset`."""
    if external_blob_mode != "reference":
        if external_blob_mode != "ingest":
            raise InvalidInputError(
                f"external_blob_mode must be reference or ingest, got {external_blob_mode!r}"
            )
        raise UnsupportedError("external_blob_mode='ingest': blobs are not supported yet")
    # Limits of caches and packs, which pilum's writer does not have; they change no rows.
    del max_rows_per_group, data_cache_bytes, allow_external_blob_outside_bases, blob_pack_file_size_threshold
    if use_legacy_format is not None:
        data_storage_version = data_storage_version or ("legacy" if use_legacy_format else "stable")
    if max_page_bytes is not None and max_page_bytes < 1:
        raise InvalidInputError(f"max_page_bytes must be at least 1, got {max_page_bytes}")
    return writing.WriteOptions(
        mode=mode,
        max_rows_per_file=max_rows_per_file,
        max_bytes_per_file=max_bytes_per_file,
        data_storage_version=data_storage_version,
        properties=committing.commit_message_properties(commit_message, transaction_properties) or None,
        commit_lock=commit_lock,
        stable_row_ids=enable_stable_row_ids,
        naming=NamingScheme.V2 if enable_v2_manifest_paths else NamingScheme.V1,
        config=auto_cleanup_config(auto_cleanup_options) if auto_cleanup_options else {},
        progress=progress,
        page_bytes=max_page_bytes,
        targets=_targets(initial_bases, target_bases, target_all_bases),
    )


def _targets(initial_bases: Any, target_bases: Any, target_all_bases: bool | None) -> Targets | None:
    if not initial_bases and not target_bases and target_all_bases is None:
        return None
    return targets.Targets.of(initial_bases, target_bases, target_all_bases)
