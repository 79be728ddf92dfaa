"""Machine code in memory: names that it needs, and object files made images."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest

from pilum.native import loader
from pilum.native.image import link
from pilum.native.loader import load_code
from tests.native.sources import SCALED, allocating, calling, compiled, scaled, source

LENGTH = {"c_length": "i8 strlen(p)"}


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("library", [None, "libc.so.6"])
def test_functions_of_libraries_are_called(image: bool, library: str | None) -> None:
    if library and sys.platform != "linux":
        pytest.skip("has another name here")
    one = source(calling, "i8(r.u1)", externals=LENGTH, library=library)
    function = load_code(one, compiled(one, image=image))
    assert function is not None
    assert function(np.frombuffer(b"four\0more", np.uint8)) == 4


@pytest.mark.parametrize("image", [True, False])
def test_a_name_that_is_not_found_means_no_function(image: bool) -> None:
    one = source(scaled, SCALED)
    code = compiled(one, image=image)
    assert load_code(one, code._replace(names=[*code.names, "pilum_has_no_such_function"])) is None
    lost = source(scaled, SCALED, library="libpilum-has-no-such.so.7")
    assert load_code(lost, code) is None


def test_code_that_allocates_is_not_loaded() -> None:
    one = source(allocating, "i8(r.u1)")
    code = compiled(one)
    assert any(name.startswith("NRT_MemInfo_alloc") for name in code.names)
    assert load_code(one, code) is None


def test_no_memory_or_no_llvm_means_no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    one = source(scaled, SCALED)
    image, plain = compiled(one), compiled(one, image=False)
    if isinstance(image.entry, int):
        with monkeypatch.context() as patch:
            patch.setattr(loader, "_ANONYMOUS", 0)  # a file that is not there
            assert load_code(one, image) is None
        with monkeypatch.context() as patch:
            patch.setattr(loader, "_EXECUTE", -1)
            assert load_code(one, image) is None
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    monkeypatch.setattr("pilum.imports._complete", set())
    assert load_code(one, plain) is None


@pytest.mark.skipif(sys.platform != "linux", reason="images are of ELF files")
def test_object_files_that_are_not_understood_stay_what_they_are() -> None:
    code = compiled(source(scaled, SCALED), image=False)
    image = link(code)
    if image is None:
        pytest.skip("not this processor")
    assert isinstance(image.entry, int)
    content = code.content
    assert link(code._replace(content=b"MZ" + content[2:])) is None
    assert link(code._replace(content=content[:18] + struct.pack("<H", 183) + content[20:])) is None
    assert link(code._replace(entry="another")) is None
    (table,) = struct.unpack_from("<Q", content, 40)
    (count,) = struct.unpack_from("<H", content, 60)
    writable = relative = 0
    for number in range(count):
        at = table + 64 * number
        _, kind, flags, _, offset, size = struct.unpack_from("<IIQQQQ", content, at)
        if flags & 2 and size and kind == 1:
            changed = bytearray(content)
            struct.pack_into("<Q", changed, at + 8, flags | 1)
            assert link(code._replace(content=bytes(changed))) is None
            writable += 1
        (target,) = struct.unpack_from("<I", content, at + 44)
        target_kind = struct.unpack_from("<I", content, table + 64 * target + 4)[0]
        if kind == 4 and size and target_kind == 1:
            changed = bytearray(content)
            changed[offset + 8] = 2  # an address relative to its place
            assert link(code._replace(content=bytes(changed))) is None
            relative += 1
    assert writable
    assert relative
