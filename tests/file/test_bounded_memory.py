"""A large column is written and read in little memory: pages are flushed as they fill, batches decoded as they are asked for.

The size is that of CI; ``PILUM_STREAM_GB=10`` writes more in the same memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

GIGABYTES = float(os.environ.get("PILUM_STREAM_GB", "1"))
LIMIT_MIB = 300

SCRIPT = """
import resource, sys
import numpy as np, pyarrow as pa
import pilum

path, gigabytes = sys.argv[1], float(sys.argv[2])
schema = pa.schema([
    pa.field("v", pa.list_(pa.float32(), 256)),
    pa.field("b", pa.large_binary(), metadata={"lance-encoding:blob": "true"}),
    pa.field("i", pa.int64()),
])
rows = 8192
generator = np.random.default_rng(0)
vectors = pa.FixedSizeListArray.from_arrays(pa.array(generator.standard_normal(rows * 256).astype(np.float32)), 256)
blobs = pa.array([b"x" * 1000] * rows, pa.large_binary())
count = int(gigabytes * 2**30 / (rows * 2100))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

with pilum.LanceFileWriter(path, schema) as writer:
    for number in range(4):
        writer.write_batch(pa.record_batch([vectors, blobs, pa.array(np.arange(rows) + number * rows)], schema=schema))
    before = peak()
    for number in range(4, count):
        writer.write_batch(pa.record_batch([vectors, blobs, pa.array(np.arange(rows) + number * rows)], schema=schema))
written = peak() - before
reader = pilum.LanceFileReader(path)
seen = 0
for batch in reader.read_all(batch_size=1024).to_batches():
    assert batch.column(2)[0].as_py() == seen
    seen += batch.num_rows
assert seen == reader.num_rows() == count * rows
print(written, peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "large.lance"), str(GIGABYTES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written, both = map(int, done.stdout.split())
    assert (tmp_path / "large.lance").stat().st_size > 0.8 * GIGABYTES * 2**30
    assert written < LIMIT_MIB, f"writing took {written} MiB more"
    assert both < LIMIT_MIB, f"reading took {both} MiB more"
