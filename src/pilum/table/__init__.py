"""The table: versions, manifests, transactions and commits.

A table is a folder in which every version is one immutable manifest.  This room reads and writes manifests
(`manifest_file`, `codec`), finds versions (`versions`, `history`), turns one version into the next
(`operations`, `build`), decides which concurrent changes can stand together (`catch_up`, `conflicts`, `rebase`) and
publishes the result (`commit`).  It keeps the deletion vectors (`deletions`), the stable row ids and row
versions (`row_ids`, `row_id_index`, `lineage`), tags, branches and clones (`references`, `cloning`), knows where
files lie (`locations`), and cleans up and checks (`maintenance`, `validation`).  What is inside a data file is
not its business.
"""

from pilum.table.catch_up import known
from pilum.table.cloning import deep_clone, shallow_clone
from pilum.table.commit import CommitLock, commit
from pilum.table.deletions import read_deletions, write_deletions
from pilum.table.external import forget_versions
from pilum.table.file_lists import FileInfo, all_files, tracked_files
from pilum.table.files import TrackedFile, files_of
from pilum.table.folder_store import FolderStore, folder_of
from pilum.table.fragment_json import fragment_from_json, fragment_to_json
from pilum.table.history import (
    VersionInfo,
    describe_versions,
    read_transactions,
    summarize,
    version_at,
)
from pilum.table.indices import covered_fragments, index_details, index_files, is_system_index, new_index
from pilum.table.lineage import created_versions, fragment_row_ids, updated_versions
from pilum.table.locations import Location, data_file_location, index_location, open_location
from pilum.table.maintenance import (
    CleanupResult,
    auto_cleanup,
    cleanup,
    parse_duration,
)
from pilum.table.migration import migrate_names_to_v2, migrate_to_stable_row_ids
from pilum.table.model import (
    TOMBSTONE,
    BasePath,
    DataFile,
    DeletionFile,
    Fragment,
    IndexMetadata,
    Manifest,
    WriterVersion,
)
from pilum.table.naming import NamingScheme, data_file_name
from pilum.table.operations import (
    REWRITE_COLUMNS,
    REWRITE_ROWS,
    Append,
    Clone,
    CreateIndex,
    DataOverlay,
    DataReplacement,
    Delete,
    KeyFilter,
    Merge,
    Opaque,
    Operation,
    Overwrite,
    Project,
    ReserveFragments,
    Restore,
    Rewrite,
    RewriteGroup,
    RewrittenIndex,
    Update,
    UpdateBases,
    UpdateConfig,
    UpdateMap,
    UpdateMemWalState,
)
from pilum.table.operations.columns import max_field_id
from pilum.table.references import (
    Reference,
    Resolved,
    branch_store,
    create_branch,
    create_tag,
    delete_branch,
    delete_tag,
    get_branch,
    get_tag,
    list_branches,
    list_tags,
    main_store,
    resolve,
    update_tag,
)
from pilum.table.refs import Branch, Tag
from pilum.table.roaring import encode_roaring
from pilum.table.row_id_index import RowIdIndex, build_row_id_index, load_row_id_index, read_row_ids
from pilum.table.row_ids import RowIdSequence, decode_row_ids, encode_row_ids
from pilum.table.transaction import Transaction, merge_appends
from pilum.table.validation import find_problems, validate
from pilum.table.versions import (
    VersionFile,
    find_versions,
    latest_version,
    list_versions,
    load_again,
    load_manifest,
    load_version,
    read_transaction,
)

__all__ = [
    "REWRITE_COLUMNS",
    "REWRITE_ROWS",
    "TOMBSTONE",
    "Append",
    "BasePath",
    "Branch",
    "CleanupResult",
    "Clone",
    "CommitLock",
    "CreateIndex",
    "DataFile",
    "DataOverlay",
    "DataReplacement",
    "Delete",
    "DeletionFile",
    "FileInfo",
    "FolderStore",
    "Fragment",
    "IndexMetadata",
    "KeyFilter",
    "Location",
    "Manifest",
    "Merge",
    "NamingScheme",
    "Opaque",
    "Operation",
    "Overwrite",
    "Project",
    "Reference",
    "ReserveFragments",
    "Resolved",
    "Restore",
    "Rewrite",
    "RewriteGroup",
    "RewrittenIndex",
    "RowIdIndex",
    "RowIdSequence",
    "Tag",
    "TrackedFile",
    "Transaction",
    "Update",
    "UpdateBases",
    "UpdateConfig",
    "UpdateMap",
    "UpdateMemWalState",
    "VersionFile",
    "VersionInfo",
    "WriterVersion",
    "all_files",
    "auto_cleanup",
    "branch_store",
    "build_row_id_index",
    "cleanup",
    "commit",
    "covered_fragments",
    "create_branch",
    "create_tag",
    "created_versions",
    "data_file_location",
    "data_file_name",
    "decode_row_ids",
    "deep_clone",
    "delete_branch",
    "delete_tag",
    "describe_versions",
    "encode_roaring",
    "encode_row_ids",
    "files_of",
    "find_problems",
    "find_versions",
    "folder_of",
    "forget_versions",
    "fragment_from_json",
    "fragment_row_ids",
    "fragment_to_json",
    "get_branch",
    "get_tag",
    "index_details",
    "index_files",
    "index_location",
    "is_system_index",
    "known",
    "latest_version",
    "list_branches",
    "list_tags",
    "list_versions",
    "load_again",
    "load_manifest",
    "load_row_id_index",
    "load_version",
    "main_store",
    "max_field_id",
    "merge_appends",
    "migrate_names_to_v2",
    "migrate_to_stable_row_ids",
    "new_index",
    "open_location",
    "parse_duration",
    "read_deletions",
    "read_row_ids",
    "read_transaction",
    "read_transactions",
    "resolve",
    "shallow_clone",
    "summarize",
    "tracked_files",
    "update_tag",
    "updated_versions",
    "validate",
    "version_at",
    "write_deletions",
]
