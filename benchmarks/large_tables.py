"""Tables with a long history and with very many fragments: pilum against the reference.

One table of 10,000 versions, the same without the version hint that both engines leave after a commit ("no hint", which
is only opened), and one of 100,000 fragments.  Each engine runs each operation in a process of its own,
which has done the same on a small table ten times before (so imports and compiled code are there, and the interpreter
has seen the code); the two take turns on the same tables.  Figures are medians of the time and of the peak memory of the process; ratios are
reference / pilum (above 1: pilum is faster, or needs less).

pilum waits until what it wrote is on disk (four ``fsync`` for an append), the reference does not; ``--without-sync``
takes that out of the comparison.

    python benchmarks/large_tables.py [--rounds 7] [--versions 10000] [--fragments 100000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROWS = 100
WARM_UP = 10


def rows(count: int = ROWS) -> Any:
    """Some rows of the tables."""
    import pyarrow as pa

    return pa.table({"id": pa.array(range(count), pa.int64()), "x": pa.array([0.5] * count)})


def write(folder: Path, versions: int, fragments: int) -> None:
    """Write the tables.  Files are copied, and versions put there without waiting for the disk."""
    import pilum
    from pilum.io import LocalStore
    from pilum.table import Overwrite, Transaction, data_file_name
    from pilum.table.build import build_manifest
    from pilum.table.hint import write_hint
    from pilum.table.manifest_file import serialize_manifest_file
    from pilum.table.naming import VERSION_HINT, manifest_path
    from pilum.table.operations import UpdateConfig, UpdateMap
    from pilum.table.transaction import encode_transaction, new_uuid

    def publish(uri: Path, manifest: Any, transaction: Any) -> None:
        encoded = encode_transaction(transaction)
        (uri / "_transactions" / transaction.file_name).write_bytes(encoded)
        (uri / manifest_path(manifest.version)).write_bytes(serialize_manifest_file(manifest, encoded))

    small = folder / "small.lance"
    pilum.write_dataset(rows(), small, max_rows_per_file=ROWS // 2)

    uri = folder / "versions.lance"
    manifest = pilum.write_dataset(rows(), uri, max_rows_per_file=ROWS // 2).aio.manifest
    for number in range(1, versions):
        change = UpdateConfig(config=UpdateMap({"number": str(number)}))
        transaction = Transaction(manifest.version, new_uuid(), change)
        manifest = build_manifest(manifest, transaction, time.time_ns())
        publish(uri, manifest, transaction)
    (uri / VERSION_HINT).unlink()
    shutil.copytree(uri, folder / "no hint.lance", copy_function=os.link)
    write_hint(LocalStore(uri), versions)

    uri = folder / "fragments.lance"
    manifest = pilum.write_dataset(rows(), uri).aio.manifest
    (fragment,) = manifest.fragments
    (file,) = fragment.files
    body = (uri / "data" / file.path).read_bytes()
    copies = []
    for _ in range(fragments):
        name = data_file_name()
        (uri / "data" / name).write_bytes(body)
        copies.append(replace(fragment, id=0, files=(replace(file, path=name),)))
    transaction = Transaction(1, new_uuid(), Overwrite(tuple(copies), manifest.schema))
    publish(uri, build_manifest(manifest, transaction, time.time_ns()), transaction)
    write_hint(LocalStore(uri), 2)


def operations(module: Any) -> dict[str, Any]:
    """Name -> prepare(uri), which returns what is timed."""

    def opening(uri: str) -> Any:
        return lambda: module.dataset(uri)

    def versions(uri: str) -> Any:
        ds = module.dataset(uri)
        return lambda: ds.versions()

    def append(uri: str) -> Any:
        ds = module.dataset(uri)
        return lambda: module.write_dataset(rows(), ds, mode="append")

    def scan(uri: str) -> Any:
        ds = module.dataset(uri)
        number = ds.get_fragments()[-1].fragment_id
        return lambda: ds.get_fragment(number).to_table()

    def delete(uri: str) -> Any:
        ds = module.dataset(uri)
        fragment = ds.get_fragments()[0]
        row = fragment.to_table()["id"][0].as_py()

        def run() -> None:
            changed = fragment.delete(f"id = {row}")
            operation = module.LanceOperation.Delete([changed], [], f"id = {row}")
            module.LanceDataset.commit(ds, operation, read_version=ds.version)

        return run

    def delete_by_scan(uri: str) -> Any:
        ds = module.dataset(uri)
        return lambda: ds.delete("id < 0")

    def config(uri: str) -> Any:
        ds = module.dataset(uri)
        return lambda: ds.update_config({"number": str(time.time())})

    return {
        "open": opening,
        "versions()": versions,
        "append": append,
        "scan one fragment": scan,
        "delete in one fragment": delete,
        "delete after a scan of all": delete_by_scan,
        "update config": config,
    }


def worker(engine: str, operation: str, folder: str, table: str) -> None:
    """Run one operation; prints seconds and peak memory."""
    if engine == "pilum":
        import pilum as module

        if os.environ.get("WITHOUT_SYNC"):
            os.fsync = lambda descriptor: None
    else:
        import lance as module  # type: ignore[no-redef]
    prepare = operations(module)[operation]
    small = tempfile.mkdtemp()
    shutil.copytree(Path(folder) / "small.lance", Path(small) / "t.lance")
    for _ in range(WARM_UP):
        prepare(f"{small}/t.lance")()
    shutil.rmtree(small)
    timed = prepare(f"{folder}/{table}.lance")
    gc.collect()  # what was allocated before is not collected on the clock
    started = time.perf_counter()
    timed()
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak_mib": peak / 1024}))


def measure(engine: str, operation: str, folder: Path, table: str) -> dict[str, float]:
    """One run in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", engine, operation, str(folder), table],
        capture_output=True,
        text=True,
        env={**os.environ, "LANCE_LOG": "error"},
    )
    if done.returncode:
        raise RuntimeError(f"{engine}, {operation}, {table}: {done.stderr[-2000:]}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Write the tables, let the engines take turns, print a line for each operation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--fragments", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="keep the tables there, and use those that are there")
    parser.add_argument("--without-sync", action="store_true", help="pilum does not wait for the disk either")
    parser.add_argument("--only", help="operations whose name contains this")
    parser.add_argument("--worker", nargs=4)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(*arguments.worker)
        return
    if arguments.without_sync:
        os.environ["WITHOUT_SYNC"] = "1"
    folder = arguments.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "no hint.lance").exists():
        for table in ("small", "versions", "no hint", "fragments"):
            shutil.rmtree(folder / f"{table}.lance", ignore_errors=True)
        write(folder, arguments.versions, arguments.fragments)
    import pilum

    print(
        f"{'table':10} {'operation':28} {'pilum s':>9} {'ref. s':>9} {'ratio':>6} {'MiB':>7} {'ref.':>7} {'ratio':>6}"
    )
    skipped = {"versions": (), "no hint": tuple(operations(pilum))[1:], "fragments": ("versions()",)}
    for table, others in skipped.items():
        for operation in operations(pilum):
            if operation in others:
                continue
            if arguments.only and arguments.only not in operation:
                continue
            found: dict[str, list[dict[str, float]]] = {"pilum": [], "reference": []}
            for _ in range(arguments.rounds):
                for engine, results in found.items():
                    results.append(measure(engine, operation, folder, table))
            medians = [
                statistics.median(one[what] for one in found[engine])
                for what in ("seconds", "peak_mib")
                for engine in ("pilum", "reference")
            ]
            mine, theirs, memory, their_memory = medians
            print(
                f"{table:10} {operation:28} {mine:9.4f} {theirs:9.4f} {theirs / mine:6.2f} "
                f"{memory:7.0f} {their_memory:7.0f} {their_memory / memory:6.2f}",
                flush=True,
            )
    if arguments.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
