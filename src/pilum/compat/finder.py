"""Modules named ``lance…``, made when they are imported.

An importer in front of all others answers for ``lance`` and everything below it.  A module is filled from the
catalogue name by name when somebody asks for one (PEP 562), so that importing is as cheap as importing pilum.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from pilum.compat.catalogue import MODULES, Missing, is_package, resolve

__all__ = ["install"]

_NAME = "lance"


class _Loader(Loader):
    """Fills a module from the catalogue."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = f"pilum under the name {module.__name__}."
        if module.__name__ == _NAME:
            # Its function `dataset` has the name of a submodule, and importing a submodule sets that name: so
            # the submodule comes first.
            importlib.import_module(f"{_NAME}.dataset")
            # Importing the reference loads this, and programs say `pa.dataset` without importing it.
            importlib.import_module("pyarrow.dataset")
            module.__dict__["dataset"] = resolve(_NAME, "dataset")


class _Module(ModuleType):
    """A module whose names are looked up in the catalogue."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return sorted(MODULES[self.__name__])
        try:
            value = resolve(self.__name__, name)
        except Missing:
            if f"{self.__name__}.{name}" in MODULES:
                return importlib.import_module(f"{self.__name__}.{name}")
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}") from None
        self.__dict__[name] = value
        return value

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *MODULES[self.__name__]})


class LanceFinder(MetaPathFinder):
    """Finds ``lance`` and its submodules in pilum."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's specification; None for modules of others."""
        if fullname != _NAME and not fullname.startswith(_NAME + "."):
            return None
        if fullname not in MODULES:
            raise ModuleNotFoundError(
                f"No module named {fullname!r} (pilum stands in for {_NAME} and has no such module)",
                name=fullname,
            )
        return ModuleSpec(fullname, _Loader(), origin="pilum", is_package=is_package(fullname))


def install() -> None:
    """Let ``import lance`` mean pilum from here on.  A second call does nothing.

    Raises:
        RuntimeError: the real ``lance`` is imported already.
    """
    if any(isinstance(one, LanceFinder) for one in sys.meta_path):
        return
    loaded = [name for name in sys.modules if name == _NAME or name.startswith(_NAME + ".")]
    if loaded:
        origin = getattr(sys.modules.get(_NAME, sys.modules[loaded[0]]), "__file__", None)
        raise RuntimeError(
            f"{_NAME} is imported already, from {origin}; call pilum.install_as_lance() before anything imports it"
        )
    sys.meta_path.insert(0, LanceFinder())
