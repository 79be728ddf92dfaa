# Fragments prepared elsewhere and committed once; fragments as JSON; deletes by hand; conflicts.
import json
import pickle
import warnings

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.fragment import DataFile, FragmentMetadata, LanceFragment, RowIdSequence, write_fragments

warnings.simplefilter("ignore")


def shown(fragment):
    if fragment is None:
        return None
    return (
        fragment.id,
        fragment.physical_rows,
        fragment.num_rows,
        fragment.num_deletions,
        [
            (one.fields, one.column_indices, one.file_major_version, one.file_minor_version)
            for one in fragment.files
        ],
        None if fragment.deletion_file is None else fragment.deletion_file.file_type,
        sorted(fragment.to_json()),
    )


def fails(call, *kinds):
    try:
        call()
    except kinds as error:
        print("raises", [kind.__name__ for kind in kinds if isinstance(error, kind)])
    else:
        print("no error")


rows = pa.table({"a": range(6), "s": list("abcdef")})
made = write_fragments(rows, "t.lance", mode="create", max_rows_per_file=3)
print([shown(one) for one in made])
ds = lance.LanceDataset.commit("t.lance", lance.LanceOperation.Overwrite(rows.schema, made))
print(ds.version, ds.to_table().to_pydict(), [one.fragment_id for one in ds.get_fragments()])
text = [json.dumps(one.to_json()) for one in write_fragments(rows, ds)]
append = lance.LanceOperation.Append([FragmentMetadata.from_json(one) for one in text])
ds = lance.LanceDataset.commit(ds, append, read_version=ds.version, commit_message="more")
print(ds.version, ds.count_rows(), ds.read_transaction(ds.version).transaction_properties)
one = LanceFragment.create("t.lance", pa.table({"a": [9], "s": ["z"]}), fragment_id=4)
print(
    shown(one),
    pickle.loads(pickle.dumps(one)) == one,
    FragmentMetadata.from_json(json.dumps(one.to_json())) == one,
)
fragment = ds.get_fragments()[0]
print(
    fragment.count_rows(),
    fragment.count_rows("a > 0"),
    fragment.head(1).to_pydict(),
    fragment.take([0, 2]).to_pydict(),
)
fails(lambda: fragment.take([2, 0]), OSError)
fails(lambda: fragment.take([20]), OSError)
fails(lambda: ds.take([100]), OSError)
fails(lambda: ds.take([-1]), OverflowError)
print(fragment.open_session(["a"]).take([1]).to_pydict())
print(shown(fragment.delete("a = 1")), shown(fragment.delete("a = 1000")), shown(fragment.delete("true")))
print(shown(fragment.delete_rows([0, 2])), shown(fragment.delete_rows([0, 1, 2])))
fails(lambda: fragment.delete_rows([3]), ValueError)
delete = lance.LanceOperation.Delete([fragment.delete("a = 1")], [], "a = 1")
ds = lance.LanceDataset.commit(ds, delete, read_version=ds.version)
fragment = ds.get_fragments()[0]
print(ds.to_table()["a"].to_pylist(), shown(fragment.metadata), fragment.deletion_file() is not None)
print(fragment.metadata.deletion_file.path(0, "base") == "base/" + fragment.deletion_file())
print(shown(LanceFragment.create_from_file(fragment.data_files()[0].path, ds, 0))[:4])
print(DataFile.create(ds, fragment.data_files()[0].path).fields)
fails(lambda: lance.LanceDataset.commit("t.lance", append), ValueError)
fails(lambda: lance.LanceDataset.commit("t.lance", "append", read_version=1), TypeError)
fails(lambda: lance.LanceDataset.commit("no.lance", append, read_version=1), OSError)
fails(lambda: lance.LanceOperation.Append([1]), TypeError)
fails(lambda: lance.LanceOperation.Append(one), TypeError)
print(lance.LanceDataset.commit("t.lance", lance.LanceOperation.Restore(1)).count_rows())
fails(lambda: lance.LanceDataset.commit("t.lance", delete, read_version=2), CommitConflictError)
ds = lance.dataset("t.lance")
transactions = [
    lance.Transaction(
        ds.version,
        lance.LanceOperation.Append([LanceFragment.create(ds.uri, pa.table({"a": [i], "s": ["q"]}))]),
    )
    for i in range(3)
]
result = lance.LanceDataset.commit_batch(ds, transactions)
print(result["dataset"].version, result["dataset"].count_rows(), len(result["merged"].operation.fragments))
fails(lambda: lance.LanceDataset.commit_batch(ds, []), OSError)
transaction = write_fragments(pa.table({"a": [77], "s": ["t"]}), "t.lance", return_transaction=True)
print(type(transaction.operation).__name__, transaction.read_version)
ds = lance.LanceDataset.commit("t.lance", transaction)
print(ds.version, ds.to_table(filter="a = 77").to_pydict())
detached = lance.LanceDataset.commit("t.lance", append, read_version=ds.version, detached=True)
print(detached.version > 1 << 62, lance.dataset("t.lance").version == ds.version)
stable = lance.write_dataset(rows, "stable.lance", enable_stable_row_ids=True, max_rows_per_file=3)
print(stable.has_stable_row_ids, ds.has_stable_row_ids)
meta = stable.get_fragments()[1].metadata
print(list(RowIdSequence.from_inline_metadata(meta.row_id_meta)), meta.row_id_meta.json())
print(RowIdSequence([1, 2, 9]).to_inline_metadata().asdict(), RowIdSequence([3, 4]))
stable.delete("a in (0, 4)")
stable.insert(pa.table({"a": [50], "s": ["new"]}))
delta = stable.delta(1)
print(delta.get_inserted_rows().read_all().to_pydict(), delta.get_updated_rows().read_all().num_rows)
print(
    delta.get_deleted_row_ids().read_all().to_pydict(),
    [type(x.operation).__name__ for x in delta.list_transactions()],
)
fails(lambda: stable.delta(), ValueError)
