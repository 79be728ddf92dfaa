"""Golden histories replayed: version N and the transaction of N+1 must give what the reference wrote as N+1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilum.errors import PilumError
from pilum.table import Clone, Manifest, Overwrite, Restore, covered_fragments
from pilum.table.build import build_manifest
from pilum.table.indices import FRAGMENT_REUSE
from pilum.table.manifest_file import parse_manifest_file
from pilum.table.naming import parse_manifest_name
from pilum.table.operations import Opaque, Rewrite
from pilum.table.transaction import Transaction, decode_transaction
from tests.support import GOLDEN

TABLES = GOLDEN / "table"


def history(folder: Path) -> dict[int, tuple[Manifest, Transaction | None]]:
    """Versions of a folder with the transactions that made them."""
    found = {}
    for path in sorted((folder / "_versions").glob("*.manifest")):
        if (name := parse_manifest_name(path.name)) is None or name.scheme is None:
            continue
        try:
            manifest, encoded = parse_manifest_file(path.read_bytes(), str(path))
        except PilumError:
            continue
        if encoded is None and manifest.transaction_file:
            file = folder / "_transactions" / manifest.transaction_file
            encoded = file.read_bytes() if file.exists() else None
        found[manifest.version] = (
            manifest,
            None if encoded is None else decode_transaction(encoded, str(path)),
        )
    return found


def steps() -> list[Any]:
    result = []
    for versions in sorted(TABLES.glob("*.lance/**/_versions")):
        folder = versions.parent
        if folder.name.startswith("crafted"):
            continue
        for version, (_, transaction) in history(folder).items():
            kind = None if transaction is None else transaction.operation.kind
            label = f"{folder.relative_to(TABLES)}-{version}-{kind}"
            result.append(pytest.param(folder, version, id=label))
    return result


def comparable(manifest: Manifest) -> dict[str, Any]:
    """What must be equal; time, signature and encoded forms left out."""
    return {
        "schema": manifest.schema,
        "schema_metadata": dict(manifest.schema.metadata),
        "fragments": manifest.fragments,
        "config": dict(manifest.config),
        "table_metadata": dict(manifest.table_metadata),
        "data_version": manifest.data_version,
        "max_fragment_id": manifest.max_fragment_id,
        "next_row_id": manifest.next_row_id,
        "flags": (manifest.reader_flags, manifest.writer_flags),
        "base_paths": frozenset(manifest.base_paths),
        "branch": manifest.branch,
        "indices": [
            (one.name, one.uuid, one.fields, one.dataset_version, covered_fragments(one))
            for one in manifest.indices
        ],
    }


@pytest.mark.golden
@pytest.mark.parametrize(("folder", "version"), steps())
def test_golden_steps(folder: Path, version: int) -> None:
    versions = history(folder)
    expected, transaction = versions[version]
    if transaction is None:
        pytest.skip("no transaction")
    operation = transaction.operation
    assert not isinstance(operation, Opaque)
    before = versions[version - 1][0] if version - 1 in versions else None
    if before is None and not isinstance(operation, Overwrite | Clone):
        pytest.skip("the version before is not there")
    if isinstance(operation, Restore):
        operation = replace(operation, content=versions[operation.version][0])
    elif isinstance(operation, Overwrite):
        # Neither the format nor the schema metadata is part of the stored transaction.
        schema = replace(operation.schema, metadata=expected.schema.metadata)
        operation = replace(operation, data_version=expected.data_version, schema=schema)
    elif isinstance(operation, Clone):
        source = TABLES / Path(operation.ref_path).relative_to("/tmp/pilum-golden/table")
        content, _ = history(source)[operation.ref_version]
        operation = replace(operation, content=content)
    elif isinstance(operation, Rewrite):
        made = [one for one in expected.indices if one.name == FRAGMENT_REUSE]
        operation = replace(operation, frag_reuse_index=made[0] if made else None)
    built = build_manifest(
        before,
        replace(transaction, operation=operation),
        expected.timestamp_ns,
        stable_row_ids=expected.uses_stable_row_ids,
    )
    found, wanted = comparable(built), comparable(expected)
    assert built.version == version
    for key, value in wanted.items():
        assert found[key] == value, key
