"""Where new data files go: into the folder of the table, or into base paths (spec/table.md, section 13.4).

```
target_bases=["hot", "s3://b/cold"]     file 1 ─► hot      file 2 ─► cold     file 3 ─► hot     ...
target_all_bases=True                   file 1 ─► table    file 2 ─► base 1   file 3 ─► base 2  ...
```

Only data files go there.  Manifests, transactions, deletion files and indices stay in the folder of the table, and so
do the files of updates and of new columns.  Names are resolved here, purely; `open_places` opens the stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pilum.dataset.fragment_writer import Place
from pilum.errors import InvalidInputError
from pilum.io import Store
from pilum.table import BasePath, Manifest, locate, note_bases, open_location

if TYPE_CHECKING:
    from pilum.io.postponed import PostponingStore

__all__ = ["Targets", "open_places"]

_DATA = "data"


class Targets(NamedTuple):
    """What a write says about base paths.

    Attributes:
        initial: base paths of a table that is to be created; an id of 0 is to be chosen.
        names: names or addresses of the bases to write into, in turns.
        everywhere: write into all bases in turns; True: and into the table, which is first.
    """

    initial: tuple[BasePath, ...] = ()
    names: tuple[str, ...] = ()
    everywhere: bool | None = None

    @classmethod
    def of(cls, initial_bases: Any, target_bases: Any, target_all_bases: bool | None) -> Targets:
        """The options of a user, checked.

        Raises:
            InvalidInputError: they exclude each other, or two bases have the same id.
            TypeError: they are no base paths, or no texts.
        """
        if isinstance(target_bases, str):
            raise TypeError(f"target_bases must be a list of texts, got {target_bases!r}")
        names = tuple(target_bases or ())
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"target_bases must be texts, got {name!r}")
        if names and target_all_bases is not None:
            raise InvalidInputError("pass either target_bases or target_all_bases")
        initial = tuple([_stored(one) for one in initial_bases or ()])
        return cls(_numbered(initial), names, target_all_bases)

    @property
    def given(self) -> bool:
        """Whether files are to go elsewhere than into the table."""
        return bool(self.names) or self.everywhere is not None

    def bases(self, current: Manifest | None) -> tuple[BasePath, ...]:
        """The base paths of the table, which may not be there yet.

        Raises:
            InvalidInputError: there are new ones for a table that exists.
        """
        if current is None:
            return self.initial
        if self.initial:
            raise InvalidInputError(
                "initial_bases: base paths are given to a table when it is created; use add_bases"
            )
        return current.base_paths

    def chosen(self, addresses: Sequence[str], bases: Sequence[BasePath]) -> list[BasePath | None]:
        """The bases to write into, in turns; None stands for the table.

        Args:
            addresses: of the table.
            bases: its base paths.

        Raises:
            InvalidInputError: a name means none of them, or there is none to write into.
        """
        ordered = sorted(bases, key=lambda one: one.id)
        if self.everywhere is not None:
            # Base 0 is what a clone was made of: its files are not ours to add to.
            others = [one for one in ordered if one.id]
            if not self.everywhere and not others:
                raise InvalidInputError("target_all_bases=False: the dataset has no base paths to write into")
            return [None, *others] if self.everywhere else [*others]
        return [_named(name, addresses, ordered) for name in self.names] or [None]


def _named(name: str, addresses: Iterable[str], bases: Sequence[BasePath]) -> BasePath | None:
    address = name.rstrip("/")
    if address in addresses:
        return None
    found = [one for one in bases if one.name == name] or [
        one for one in bases if one.path.rstrip("/") == address
    ]
    if not found:
        known = ", ".join([repr(one.path if one.name is None else one.name) for one in bases]) or "none"
        raise InvalidInputError(f"target_bases: the dataset has no base path {name!r} (known: {known})")
    if not found[0].id:
        raise InvalidInputError(
            f"target_bases: {name!r} is what this dataset was cloned from, and is not written into"
        )
    return found[0]


def _stored(given: Any) -> BasePath:
    try:
        path, name, is_root, number = given.path, given.name, given.is_dataset_root, given.id
    except AttributeError:
        raise TypeError(f"initial_bases must be DatasetBasePath objects, got {given!r}") from None
    return BasePath(number or 0, path, bool(is_root), name)


def _numbered(bases: tuple[BasePath, ...]) -> tuple[BasePath, ...]:
    """Bases with their ids; those without get the first free ones from 1, in their order."""
    taken = [one.id for one in bases if one.id]
    if len(set(taken)) != len(taken):
        raise InvalidInputError(f"initial_bases: two base paths have the same id: {sorted(taken)}")
    free = (number for number in range(1, len(bases) + 1) if number not in taken)
    return tuple([one if one.id else replace(one, id=next(free)) for one in bases])


def open_places(
    store: Store, current: Manifest | None, targets: Targets, into: PostponingStore | None = None
) -> list[Place]:
    """The places that data files go to, in turns.

    Args:
        store: of the table.
        current: its newest version; None if it is to be created.
        targets: what was asked for.
        into: writes into the store and postpones; places elsewhere postpone with it.

    Raises:
        InvalidInputError: it does not fit the table.
    """
    bases = targets.bases(current)
    own = Place(into or store)
    if not targets.given:
        return [own]
    chosen = targets.chosen([store.uri, store.address()], bases)
    note_bases(store, bases)
    opened: dict[int, Place] = {}
    for base in chosen:
        if base is not None and base.id not in opened:
            uri, folder = locate(store.uri, bases, base.id, _DATA, f"{_DATA}/")
            there = open_location(store, uri)
            if into is not None:
                there = own.store if there is store else into.beside(there)
            opened[base.id] = Place(there, folder, base.id)
    return [own if base is None else opened[base.id] for base in chosen]
