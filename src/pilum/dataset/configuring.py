"""Config and metadata: maps of strings that versions carry (spec/table.md, section 5.1).

All of them change by one operation, `UpdateConfig`; two writers that change different keys do not disturb each
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pilum import table
from pilum.dataset.handle import Handle
from pilum.errors import InvalidInputError
from pilum.schema import Field

if TYPE_CHECKING:
    from pilum.table import UpdateMap

__all__ = ["Configuring"]

_AUTO_CLEANUP = "lance.auto_cleanup."


class Configuring(Handle):
    """The calls of `AsyncLanceDataset` on config and metadata."""

    def config(self) -> dict[str, str]:
        """The config of the table."""
        return dict(self.manifest.config)

    @property
    def metadata(self) -> dict[str, str]:
        """Free metadata of the dataset."""
        return dict(self.manifest.table_metadata)

    @property
    def schema_metadata(self) -> dict[str, str]:
        """Metadata of the Arrow schema."""
        return dict(self.manifest.schema.metadata)

    async def update_config(
        self, values: Mapping[str, str | None], *, replace: bool = False
    ) -> dict[str, str]:
        """Set entries of the config; None deletes one."""
        await self._commit(table.UpdateConfig(config=_change(values, replace)))
        return self.config()

    async def delete_config_keys(self, keys: Iterable[str]) -> None:
        """Delete entries of the config."""
        await self.update_config(dict.fromkeys(keys))

    async def update_metadata(
        self, values: Mapping[str, str | None], *, replace: bool = False
    ) -> dict[str, str]:
        """Set entries of the dataset's metadata; None deletes one."""
        await self._commit(table.UpdateConfig(table_metadata=_change(values, replace)))
        return self.metadata

    async def update_schema_metadata(
        self, values: Mapping[str, str | None], *, replace: bool = False
    ) -> dict[str, str]:
        """Set entries of the schema's metadata; None deletes one."""
        await self._commit(table.UpdateConfig(schema_metadata=_change(values, replace)))
        return self.schema_metadata

    async def update_field_metadata(
        self, field_updates: Mapping[str, Mapping[str, str | None]], *, replace: bool = False
    ) -> None:
        """Set entries of the metadata of fields, by their paths; None deletes one."""
        changes = {self._field(path).id: _change(values, replace) for path, values in field_updates.items()}
        await self._commit(table.UpdateConfig(field_metadata=changes))

    def _field(self, path: str) -> Field:
        if not isinstance(path, str):
            raise TypeError(f"fields are named by their path, got {type(path).__name__}")
        try:
            return self.manifest.schema.field(path)
        except (InvalidInputError, KeyError):
            names = ", ".join(self.manifest.schema.names)
            raise InvalidInputError(f"field {path!r} not found; columns: {names}") from None

    async def enable_auto_cleanup(self, config: Mapping[str, Any]) -> None:
        """Let every ``interval``-th commit remove versions older than ``older_than_seconds``."""
        await self.update_config(auto_cleanup_config(config))

    async def disable_auto_cleanup(self) -> None:
        """Remove the config of the automatic cleanup."""
        await self.delete_config_keys([key for key in self.manifest.config if key.startswith(_AUTO_CLEANUP)])


def auto_cleanup_config(options: Mapping[str, Any]) -> dict[str, str]:
    """The entries of the config that ask for an automatic cleanup.

    Raises:
        KeyError: an option is missing.
        InvalidInputError: one is not a number.
    """
    for name in ("interval", "older_than_seconds"):
        value = options[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InvalidInputError(
                f"automatic cleanup: {name} must be a non-negative integer, got {value!r}"
            )
    return {
        f"{_AUTO_CLEANUP}interval": str(options["interval"]),
        f"{_AUTO_CLEANUP}older_than": f"{options['older_than_seconds']}s",
    }


def _change(values: Mapping[str, str | None], replace: bool) -> UpdateMap:
    for key, value in values.items():
        texts: tuple[Any, Any] = (key, value)
        if not isinstance(texts[0], str) or not isinstance(texts[1], (str, type(None))):
            raise TypeError(f"keys and values are strings, got {key!r}: {value!r}")
    return table.UpdateMap(dict(values), replace)
