"""Mini-block pages: golden files, the worked examples, round trips and damaged pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilum.encoding import miniblock
from pilum.errors import UnsupportedError
from tests.encoding import pages
from tests.support import golden_files

FILES = [path for area in ("structure", "compression") for path in golden_files(area) if path.is_file()]


@pytest.mark.golden
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_pages(path: Path) -> None:
    found = list(pages.golden_pages(path, "mini_block_layout"))
    columns = pages.leaf_columns(pages.expectation(path))
    for golden in found:
        try:
            page = pages.opened(miniblock.decoder, golden.source, golden.version, golden.data)
        except UnsupportedError as error:
            pytest.skip(str(error))
        whole = pages.read(page, golden.data, range(page.num_rows))
        pages.check_shape(whole)
        expected = pages.leaf_of(columns[golden.column], golden.row, page.num_rows)
        assert pages.same_array(pages.leaf_array(whole, expected.type), expected), f"column {golden.column}"
        for rows in pages.some_rows(page.num_rows, golden.column):
            some = pages.read(page, golden.data, rows)
            pages.check_shape(some)
            pages.assert_same(some, pages.select(whole, rows))
