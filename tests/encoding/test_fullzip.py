"""Full-zip pages: golden files, the worked examples, round trips and damaged pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilum.encoding import fullzip, fullzip_index
from pilum.errors import UnsupportedError
from tests.encoding import pages
from tests.support import golden_files

FILES = [path for area in ("structure", "compression") for path in golden_files(area) if path.is_file()]


@pytest.mark.golden
@pytest.mark.parametrize("large_index", [False, True], ids=["index kept", "index read"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_pages(path: Path, large_index: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large_index:
        monkeypatch.setattr(fullzip_index, "CACHED_INDEX", 0)
    columns = pages.leaf_columns(pages.expectation(path))
    for golden in pages.golden_pages(path, "full_zip_layout"):
        try:
            page = fullzip.decoder(golden.source, golden.version)
        except UnsupportedError as error:
            pytest.skip(str(error))
        page = pages.opened(fullzip.decoder, golden.source, golden.version, golden.data)
        whole = pages.read(page, golden.data, range(page.num_rows))
        pages.check_shape(whole)
        expected = pages.leaf_of(columns[golden.column], golden.row, page.num_rows)
        assert pages.same_array(pages.leaf_array(whole, expected.type), expected), f"column {golden.column}"
        for rows in pages.some_rows(page.num_rows, golden.column):
            some = pages.read(page, golden.data, rows)
            pages.check_shape(some)
            pages.assert_same(some, pages.select(whole, rows))
