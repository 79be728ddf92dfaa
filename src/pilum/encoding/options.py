"""What a user may ask of the writer of a column (`spec/compression.md`, section 7).

Field metadata beats the environment, which beats the default.  Numbers in metadata that do not parse are
ignored, as the reference does; those of the environment are errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pilum import config
from pilum.errors import InvalidInputError

__all__ = ["EncodeOptions"]

_PREFIX = "lance-encoding:"
_SMALL_CHUNK = 32768  # a 2.1 chunk has 32 KiB, so targets from here on are ignored there


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How the pages of one leaf are written.

    Attributes:
        version: of the file.
        compression: ``"zstd"``, ``"lz4"``, ``"fsst"``, ``"none"`` or None for the writer's choice.
        compression_level: of zstd.
        minichunk_size: bytes that a chunk of variable-width values aims at.
        max_values: values of a mini-block chunk at most.
        rle_threshold: run-length only below this many runs per value.
        bss: byte-stream-split ``"on"``, ``"off"`` or ``"auto"``.
        dict_too_small: pages of fewer values get no dictionary.
        dict_divisor: a dictionary has at most one entry per so many values...
        dict_max_cardinality: ...and no more than so many.
        dict_size_ratio: a dictionary page has at most this share of the bytes of a plain one.
        dict_compression, dict_level: of dictionary values, in 2.2 and later.
        is_text: values are strings; other bytes get symbols only on request.
        members: of a packed struct, one per child; empty means that all are written like the struct.
    """

    version: tuple[int, int] = (2, 2)
    compression: str | None = None
    compression_level: int | None = None
    minichunk_size: int = 4096
    max_values: int = 4096
    rle_threshold: float | None = None
    bss: str = "auto"
    dict_too_small: int = 100
    dict_divisor: int = 2
    dict_max_cardinality: int = 100_000
    dict_size_ratio: float = 0.8
    dict_compression: str = "lz4"
    dict_level: int | None = None
    is_text: bool = False
    members: tuple[EncodeOptions, ...] = ()

    @classmethod
    def from_environment(cls, version: tuple[int, int] = (2, 2)) -> EncodeOptions:
        """Options of a field that asks for nothing.

        Raises:
            InvalidInputError: an environment variable that is no number.
        """
        return cls(
            version=version,
            minichunk_size=_chunk_size(config.minichunk_size(), version),
            max_values=config.miniblock_max_values(),
            dict_too_small=config.dictionary_too_small(),
            dict_divisor=config.dictionary_divisor(),
            dict_max_cardinality=config.dictionary_max_cardinality(),
            dict_size_ratio=config.dictionary_size_ratio(),
            dict_compression=config.dictionary_compression(),
            dict_level=config.dictionary_compression_level(),
        )

    def of_field(self, metadata: Mapping[str, str] | None, *, is_text: bool = False) -> EncodeOptions:
        """Options of a field, where these are those of the environment.

        Raises:
            InvalidInputError: a dictionary size ratio outside (0, 1], an unknown compression of dictionary values.
        """
        wishes = {
            key.removeprefix(_PREFIX): wish
            for key, wish in (metadata or {}).items()
            if key.startswith(_PREFIX)
        }

        def number(key: str, kind: type[Any]) -> Any:
            try:
                return kind(wishes[key])
            except (KeyError, ValueError):
                return None

        changed: dict[str, Any] = {"is_text": True} if is_text else {}
        if wishes:
            compression, bss = wishes.get("compression"), wishes.get("bss", "auto").lower()
            changed |= {
                "compression": compression.lower() if compression else None,
                "compression_level": number("compression-level", int),
                "rle_threshold": number("rle-threshold", float),
                "bss": bss if bss in ("off", "on", "auto") else "auto",
            }
            size, divisor = number("minichunk-size", int), number("dict-divisor", int)
            ratio, level = number("dict-size-ratio", float), number("dict-values-compression-level", int)
            if size is not None and size > 0:
                changed["minichunk_size"] = _chunk_size(size, self.version)
            if divisor is not None and divisor > 0:
                changed["dict_divisor"] = divisor
            if ratio is not None:
                changed["dict_size_ratio"] = ratio
            if level is not None:
                changed["dict_level"] = level
            if wishes.get("dict-values-compression"):
                changed["dict_compression"] = wishes["dict-values-compression"].lower()
        found = replace(self, **changed) if changed else self
        if not 0 < found.dict_size_ratio <= 1:
            raise InvalidInputError(
                f"the dictionary size ratio must be in (0, 1], got {found.dict_size_ratio}"
            )
        if found.dict_compression not in ("lz4", "zstd", "none"):
            raise InvalidInputError(
                f"unknown compression of dictionary values {found.dict_compression!r}; use lz4, zstd or none"
            )
        return found

    def of_dictionary(self) -> EncodeOptions:
        """How dictionary values are written: only their own compression is asked for."""
        if self.version < (2, 2):
            return EncodeOptions(self.version)
        return EncodeOptions(
            self.version, compression=self.dict_compression, compression_level=self.dict_level
        )


def _chunk_size(size: int, version: tuple[int, int]) -> int:
    return 4096 if version < (2, 2) and size >= _SMALL_CHUNK else size
