# Versions, tags, branches, clones, metadata and cleanup.
import datetime
import warnings

import lance
import pyarrow as pa

warnings.simplefilter("ignore")


def fails(*kinds):
    def check(call):
        try:
            call()
        except kinds as error:
            print("raises", [kind.__name__ for kind in kinds if isinstance(error, kind)])
        else:
            print("no error")

    return check


def show(versions):
    for one in versions:
        assert isinstance(one["timestamp"], datetime.datetime)
        assert one["timestamp"].tzinfo is None
        metadata = {name: value for name, value in one["metadata"].items() if name != "total_files_size"}
        print(one["version"], sorted(metadata.items()))


ds = lance.write_dataset(
    pa.table({"id": range(10), "name": [f"n{i}" for i in range(10)]}),
    "t.lance",
    max_rows_per_file=4,
    max_rows_per_group=4,
)
print(ds.version, len(ds), ds.count_rows("id > 3"), ds.schema.names, ds.data_storage_version, ds.max_field_id)
print(ds.delete("id = 3"))
print(ds.delete("id > 100"))
ds.insert(pa.table({"id": [100], "name": ["new"]}))
ds = lance.write_dataset([{"id": 7, "name": "again"}], ds, mode="append")
show(ds.versions())
print(ds.version_refs(), ds.latest_version)
ds.tags.create("first", 1)
ds.tags.create("now")
ds.tags.update("now", 2)
ds.tags.replace_metadata("now", {"a": "b"})
print(
    {name: (tag["branch"], tag["version"], tag["metadata"]) for name, tag in sorted(ds.tags.list().items())}
)
print([name for name, _ in ds.tags.list_ordered("asc")], ds.tags.get_version("now"))
fails(ValueError)(lambda: ds.tags.create("first", 1))
fails(ValueError)(lambda: ds.tags.create("x", 99))
fails(ValueError)(lambda: ds.tags.get_version("nope"))
fails(ValueError)(lambda: ds.tags.list_ordered("sideways"))
fails(OSError)(lambda: ds.tags.create("a b"))
fails(OSError)(lambda: ds.checkout_version(99))
fails(ValueError)(lambda: lance.dataset("t.lance", version=99))
fails(ValueError)(lambda: lance.dataset("missing.lance"))
fails(ValueError)(lambda: lance.dataset())
fails(OSError)(lambda: lance.write_dataset(pa.table({"id": [1]}), "t.lance"))
fails(ValueError)(lambda: lance.write_dataset(pa.table({"id": [1]}), "t.lance", mode="nonsense"))
for reference in (1, "first", "now", ("main", 3), (None, 2), ("main", None)):
    old = ds.checkout_version(reference)
    print(reference, old.version, old.count_rows())
print(lance.dataset("t.lance", version="first").version)
print(lance.dataset("t.lance", asof=datetime.datetime.now()).version)
branch = ds.create_branch("side", 2)
branch.insert(pa.table({"id": [55], "name": ["side"]}))
print(branch.version, branch.count_rows(), ds.latest_version, list(ds.branches.list()))
print(
    {
        name: (one["parent_branch"], one["parent_version"], len(one["branch_identifier"]))
        for name, one in ds.branches.list().items()
    }
)
print(sorted(ds.checkout_version(("side", None)).to_table()["id"].to_pylist()))
ds.branches.delete("side")
print(ds.branches.list())
fails(ValueError)(lambda: ds.branches.delete("side"))
ds.checkout_version(1).restore()
ds.checkout_latest()
print(ds.version, ds.count_rows())
print(
    ds.config(),
    sorted(ds.update_config({"a": "1", "b": "2"}).items()),
    ds.delete_config_keys(["a"]),
    ds.config(),
)
print(ds.update_metadata({"m": "1"}), ds.metadata, ds.update_schema_metadata({"s": "1"}), ds.schema_metadata)
ds.update_field_metadata({"name": {"k": "v"}})
print(ds.schema.field("name").metadata, ds.schema.metadata)
fails(OSError)(lambda: ds.update_field_metadata({"nope": {"k": "v"}}))
fails(TypeError)(lambda: ds.update_config({"k": 1}))
print([type(one.operation).__name__ for one in ds.get_transactions(20)])
print(ds.read_transaction(2).operation.predicate, ds.read_transaction(2).read_version)
fails(OSError)(lambda: ds.read_transaction(77))
for make in (ds.shallow_clone, ds.deep_clone):
    clone = make(f"{make.__name__}.lance", "first")
    print(clone.version, clone.to_table().num_rows, len(clone.versions()), len(clone.base_paths()))
    fails(OSError)(lambda make=make: make(f"{make.__name__}.lance", 1))
fails(OSError)(lambda: ds.cleanup_old_versions(older_than=datetime.timedelta(0)))
stats = ds.cleanup_old_versions(older_than=datetime.timedelta(0), error_if_tagged_old_versions=False)
print(stats.old_versions, stats.data_files_removed, stats.deletion_files_removed, stats.failed_deletes)
print([one["version"] for one in ds.versions()])
ds.validate()
print(ds.stats.dataset_stats(), [one.id for one in ds.stats.data_stats().fields])
print(ds.all_files().schema, ds.tracked_files().schema)
print(sorted(set(ds.tracked_files().read_all()["type"].to_pylist())))
ds.truncate_table()
print(ds.count_rows(), ds.fragment_ids(), list(ds.fragment_ids()))
lance.LanceDataset.drop("deep_clone.lance")
fails(OSError)(lambda: lance.LanceDataset.drop("deep_clone.lance"))
lance.LanceDataset.drop("deep_clone.lance", ignore_not_found=True)
