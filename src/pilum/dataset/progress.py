"""Objects that are told how far a write or an index build is (spec/api.md, section 7)."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pilum.dataset.fragment_metadata import FragmentMetadata
from pilum.io import run, store_for

__all__ = [
    "FileSystemFragmentWriteProgress",
    "FragmentWriteProgress",
    "IndexProgress",
    "NoopFragmentWriteProgress",
]


@dataclass
class IndexProgress:
    """How far an index build is.

    Attributes:
        event: what happened to the stage.
        stage: what is being done.
        completed, total: units done and to do, None when unknown.
        unit: what is counted.
    """

    event: Literal["start", "progress", "complete"]
    stage: str
    completed: int | None = None
    total: int | None = None
    unit: str = ""

    @property
    def fraction(self) -> float | None:
        """Part that is done, None when unknown."""
        return self.completed / self.total if self.completed is not None and self.total else None


class FragmentWriteProgress(ABC):
    """Told about every fragment of a write; subclass it."""

    @abstractmethod
    def begin(self, fragment: FragmentMetadata, **kwargs: Any) -> None:
        """A fragment is about to be written; it has no files yet."""

    @abstractmethod
    def complete(self, fragment: FragmentMetadata, **kwargs: Any) -> None:
        """A fragment has been written."""


class NoopFragmentWriteProgress(FragmentWriteProgress):
    """Does nothing."""

    def begin(self, fragment: FragmentMetadata, **kwargs: Any) -> None:
        """Does nothing."""

    def complete(self, fragment: FragmentMetadata, **kwargs: Any) -> None:
        """Does nothing."""


class FileSystemFragmentWriteProgress(FragmentWriteProgress):
    """Leaves a file for every fragment that was begun, and one with its description when it is complete.

    Args:
        base_uri: folder of the files.
        metadata: entries to put into the first file.
    """

    PROGRESS_EXT: str = ".in_progress"

    def __init__(self, base_uri: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        self.base_uri = base_uri
        self.metadata = dict(metadata or {})

    def begin(self, fragment: FragmentMetadata, **kwargs: Any) -> None:
        """Write ``fragment_<id>.in_progress``."""
        self._put(self.PROGRESS_EXT, {"fragment_id": fragment.id, "metadata": self.metadata}, fragment.id)

    def complete(self, fragment: FragmentMetadata, **kwargs: Any) -> None:
        """Write ``fragment_<id>.json``."""
        self._put(".json", fragment.to_json(), fragment.id)

    def _put(self, ending: str, values: Any, fragment_id: int) -> None:
        store = store_for(self.base_uri)
        data = json.dumps(values).encode()
        run(store.put(f"fragment_{fragment_id}{ending}", data), suspends=store.suspends)
