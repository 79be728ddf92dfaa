"""The key of what is compiled: it changes with whatever the machine code is made of, and with nothing else."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from tests.native.sources import SCALED, scaled, source


def made(text: str, **names: Any) -> FunctionType:
    space: dict[str, Any] = {"np": np, **names}
    exec(text, space)
    found = space["f"]
    assert isinstance(found, FunctionType)
    return found


PLAIN = "def f(a):\n    return a[0] + LIMIT + np.uint64(3)\n"


def key(text: str = PLAIN, signature: str = "i8(r.i8)", limit: Any = 4, **options: Any) -> bytes:
    return source(made(text, LIMIT=limit), signature, **options).key()


def test_comments_and_places_change_nothing() -> None:
    assert key() == key("# more\n\n" + PLAIN.replace("return", "# why\n    return"))
    assert source(scaled, SCALED).key() == source(scaled, SCALED).key()


def helper(value: int) -> int:
    return value + 1


def enclosed(limit: int) -> bytes:
    def inside(values: Any, more: int = 1) -> Any:
        return values[0] + limit + more

    return source(inside, "i8(r.i8)").key()


OTHERS = [
    enclosed(1),
    enclosed(2),
    key(PLAIN.replace("(a)", "(a, b=1)")),
    key(PLAIN.replace("(a)", "(a, b=2)")),
    key(PLAIN.replace("[0]", "[1]")),
    key(PLAIN.replace("uint64", "int64")),
    key(signature="i8(r.i4)"),
    key(limit=5),
    key(limit=np.int64(4)),
    key(limit=np.arange(3)),
    key(limit=np.arange(3)[::-1]),
    key(limit=(4, 5)),
    key(limit=np.uint8),
    key(limit=frozenset({1, 2})),
    key(limit=helper),
    key(limit=np),
    key(limit=object()),
    key(fastmath=True),
    key(fastmath={"nsz", "arcp"}),
    key(nogil=False),
    key(externals={"c_close": "i4 close(i4)"}),
    key(externals={"c_close": "i4 close(i4)"}, library="libc.so.6"),
    key(helpers=[helper]),
    key("def f(a):\n    def g():\n        return LIMIT\n    return g()"),
    key("def f(a):\n    def g():\n        return LIMIT\n    return g()", limit=5),
]


def test_everything_else_changes_it() -> None:
    assert len({key(), *OTHERS}) == 1 + len(OTHERS)


def test_the_order_of_sets_does_not_matter() -> None:
    assert key(fastmath={"nsz", "arcp", "contract"}) == key(fastmath={"contract", "nsz", "arcp"})
    assert key(limit=frozenset("abc")) == key(limit=frozenset("cab"))


def test_names_tell_kernels_of_a_module_apart() -> None:
    assert source(scaled, SCALED).name != source(scaled, SCALED.replace("i8", "i4")).name
    assert source(made("f = lambda a: a"), "i8(r.i8)").name.replace("_", "a").replace("-", "a").isalnum()
