"""The table: versions, manifests, transactions and commits.

A table is a folder in which every version is one immutable manifest.  This room reads and writes manifests
(`manifest_file`, `codec`), finds versions (`versions`), turns one version into the next (`operations`,
`build`), decides which concurrent changes can stand together (`conflicts`, `rebase`) and publishes the result
(`commit`).  It also keeps the deletion vectors.  What is inside a data file is not its business.
"""

from pilum.table.commit import commit
from pilum.table.deletions import read_deletions, write_deletions
from pilum.table.indices import covered_fragments, index_details, index_files, is_system_index, new_index
from pilum.table.lineage import created_versions, fragment_row_ids, updated_versions
from pilum.table.model import (
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
from pilum.table.row_id_index import RowIdIndex, build_row_id_index, load_row_id_index, read_row_ids
from pilum.table.row_ids import RowIdSequence, decode_row_ids, encode_row_ids
from pilum.table.transaction import Transaction
from pilum.table.versions import (
    VersionFile,
    find_versions,
    latest_version,
    list_versions,
    load_manifest,
    load_version,
    read_transaction,
)

__all__ = [
    "REWRITE_COLUMNS",
    "REWRITE_ROWS",
    "Append",
    "BasePath",
    "Clone",
    "CreateIndex",
    "DataFile",
    "DataOverlay",
    "DataReplacement",
    "Delete",
    "DeletionFile",
    "Fragment",
    "IndexMetadata",
    "KeyFilter",
    "Manifest",
    "Merge",
    "NamingScheme",
    "Opaque",
    "Operation",
    "Overwrite",
    "Project",
    "ReserveFragments",
    "Restore",
    "Rewrite",
    "RewriteGroup",
    "RewrittenIndex",
    "RowIdIndex",
    "RowIdSequence",
    "Transaction",
    "Update",
    "UpdateBases",
    "UpdateConfig",
    "UpdateMap",
    "UpdateMemWalState",
    "VersionFile",
    "WriterVersion",
    "build_row_id_index",
    "commit",
    "covered_fragments",
    "created_versions",
    "data_file_name",
    "decode_row_ids",
    "encode_row_ids",
    "find_versions",
    "fragment_row_ids",
    "index_details",
    "index_files",
    "is_system_index",
    "latest_version",
    "list_versions",
    "load_manifest",
    "load_row_id_index",
    "load_version",
    "new_index",
    "read_deletions",
    "read_row_ids",
    "read_transaction",
    "updated_versions",
    "write_deletions",
]
