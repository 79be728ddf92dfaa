# Scans, filters, takes, options and files; the errors of each.
import pickle
import warnings

import lance
import lance.dataset
import pyarrow as pa
import pyarrow.compute as pc
from lance.bitmap import Bitmap
from lance.dataset import ScannerBuilder
from lance.file import LanceFileReader, LanceFileWriter, stable_version
from lance.schema import LanceSchema
from lance.types import _coerce_reader

warnings.simplefilter("ignore")


def fails(call, *kinds):
    try:
        call()
    except kinds as error:
        print("raises", [kind.__name__ for kind in kinds if isinstance(error, kind)])
    else:
        print("no error")


table = pa.table(
    {
        "id": pa.array(range(20)),
        "x": pa.array([i / 4 if i % 5 else None for i in range(20)]),
        "s": [f"name {i % 3}" for i in range(20)],
        "st": [{"p": i, "q": str(i)} for i in range(20)],
        "v": pa.array([[float(i), 1.0] for i in range(20)], pa.list_(pa.float32(), 2)),
    }
)
ds = lance.write_dataset(table, "t.lance", max_rows_per_file=6, max_rows_per_group=6)
print(isinstance(ds, lance.LanceDataset), isinstance(ds, pa.dataset.Dataset), len(ds.get_fragments()))
print(ds.schema, ds.lance_schema.fields()[3].children()[1].name(), ds.lance_schema.field("st.q").id())
print(ds.to_table(columns=["id", "st.p"], filter="x > 3", limit=3).to_pydict())
print(ds.to_table(columns={"double": "id * 2", "up": "upper(s)"}, filter=pc.field("id") < 2).to_pydict())
print(ds.to_table(columns=[], with_row_id=True, filter="id in (3, 7)").to_pydict())
print(ds.to_table(columns=["id"], nearest={"column": "v", "q": [3.0, 1.0], "k": 2}).to_pydict())
print(ds.head(2, columns=["id"]).to_pydict(), ds.slice(18, 40, columns=["id"]).to_pydict())
print(ds.take([3, 1, 3], columns=["id"]).to_pydict(), ds.take(pa.array([0]), columns=["s"]).to_pydict())
print(sum(batch.num_rows for batch in ds.to_batches(batch_size=5)), ds.sample(5, columns=["id"]).num_rows)
scanner = ds.scanner(columns=["id"], filter="id > 10", batch_size=4)
print(
    scanner.projected_schema,
    scanner.count_rows(),
    scanner.to_reader().read_all().num_rows,
    scanner.head(1).num_rows,
)
print(
    isinstance(scanner, lance.LanceScanner),
    scanner.dataset_schema.names,
    isinstance(scanner.explain_plan(), str),
)
built = lance.dataset("t.lance", default_scan_options={"with_row_id": True})
print(built.schema.names, built.to_table(columns=["id"], limit=1).to_pydict(), built.count_rows())
print(
    ScannerBuilder(ds).columns(["id"]).filter("id = 4").with_row_address().to_scanner().to_table().to_pydict()
)
print(ds.to_pandas(columns=["id"], limit=2).to_dict("list"))
again = pickle.loads(pickle.dumps(ds))
print(again.version, again.to_table().equals(ds.to_table()), again == ds)
fragment = ds.get_fragments()[1]
print(fragment.to_table(columns=["id"], filter="id > 8").to_pydict(), fragment.schema == ds.schema)
print(ds.get_fragment(2).fragment_id, ds.get_fragment(99), Bitmap({3, 1}), 3 in Bitmap([3]))
print(
    ds.to_table(columns=["id"], filter="id < 100", fragments=None).num_rows
    if False
    else ds.scanner(fragments=[fragment]).to_table().num_rows
)
fails(lambda: ds.to_table(nonsense=1), TypeError)
fails(lambda: ds.to_table(columns=["nope"]), ValueError)
fails(lambda: ds.to_table(filter="nope = 1"), ValueError)
fails(lambda: ds.to_table(filter="id +"), ValueError)
fails(lambda: ds.to_table(limit=-1), ValueError)
fails(lambda: ds.to_table(batch_size=0), ValueError)
fails(lambda: ds.to_table(filter="id / (id - 3) = 1"), pa.ArrowInvalid)
fails(lambda: ds.delete("nope = 1"), OSError)
fails(lambda: ds.sample(1000), ValueError)
fails(lambda: ds.slice(-1, 3), ValueError)
fails(lambda: ds.get_fragments("id = 1"), ValueError)
fails(lambda: ds.scanner(limit=3).count_rows(), ValueError)
fails(lambda: ds.join(ds, "id"), NotImplementedError)
fails(lambda: ds.partition_expression, NotImplementedError)
fails(lambda: fragment.physical_schema, NotImplementedError)
fails(lambda: lance.LanceScanner.from_dataset(ds), NotImplementedError)
fails(lambda: scanner.take([1]), NotImplementedError)
fails(lambda: lance.write_dataset(5, "x.lance"), TypeError)
fails(lambda: lance.write_dataset(iter([table.to_batches()[0]]), "x.lance"), ValueError)
fails(lambda: lance.write_dataset(pa.table({"a.b": [1]}), "x.lance"), OSError)
fails(lambda: lance.write_dataset(pa.table({"other": [1]}), "t.lance", mode="append"), OSError)
print(
    lance.json_to_schema(lance.schema_to_json(ds.schema)) == ds.schema,
    lance.schema_to_json(ds.schema)["fields"][4],
)
print(
    LanceSchema.from_pyarrow(ds.schema).to_pyarrow() == ds.schema,
    LanceSchema.from_pyarrow(ds.schema) == ds.lance_schema,
)
print(_coerce_reader(table).read_all().equals(table), lance.__version__, stable_version())
with LanceFileWriter("f.lance", table.schema) as writer:
    writer.write_batch(table)
    print(writer.add_global_buffer(b"hello"))
reader = LanceFileReader("f.lance", columns=["id"])
print(
    reader.num_rows(),
    reader.read_range(3, 2).to_table().to_pydict(),
    reader.take_rows([1, 5]).to_table().to_pydict(),
)
print(reader.read_global_buffer(1), reader.metadata().major_version, len(reader.metadata().columns))
fails(lambda: LanceFileReader("missing.lance"), ValueError)
