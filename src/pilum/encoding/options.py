"""What a user may ask of the writer of a column (`spec/compression.md`, section 7).

Field metadata beats the environment, which beats the default.  Numbers in metadata that do not parse are
ignored, as the reference does; those of the environment are errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    def from_metadata(
        cls, metadata: Mapping[str, str] | None, version: tuple[int, int] = (2, 2)
    ) -> EncodeOptions:
        """Options of a field.

        Raises:
            InvalidInputError: a dictionary size ratio outside (0, 1], an unknown compression of dictionary values,
                an environment variable that is no number.
        """
        metadata = metadata or {}

        def number(key: str, kind: type[Any]) -> Any:
            try:
                return kind(metadata[_PREFIX + key])
            except (KeyError, ValueError):
                return None

        compression = metadata.get(_PREFIX + "compression")
        size = number("minichunk-size", int)
        if size is None or size <= 0:
            size = config.minichunk_size()
        if version < (2, 2) and size >= _SMALL_CHUNK:
            size = 4096
        bss = metadata.get(_PREFIX + "bss", "auto").lower()
        divisor, level = number("dict-divisor", int), number("dict-values-compression-level", int)
        ratio = number("dict-size-ratio", float)
        if ratio is None:
            ratio = config.dictionary_size_ratio()
        if not 0 < ratio <= 1:
            raise InvalidInputError(f"the dictionary size ratio must be in (0, 1], got {ratio}")
        values = metadata.get(_PREFIX + "dict-values-compression") or config.dictionary_compression()
        if values.lower() not in ("lz4", "zstd", "none"):
            raise InvalidInputError(
                f"unknown compression of dictionary values {values!r}; use lz4, zstd or none"
            )
        return cls(
            version=version,
            compression=compression.lower() if compression else None,
            compression_level=number("compression-level", int),
            minichunk_size=size,
            max_values=config.miniblock_max_values(),
            rle_threshold=number("rle-threshold", float),
            bss=bss if bss in ("off", "on", "auto") else "auto",
            dict_too_small=config.dictionary_too_small(),
            dict_divisor=divisor if divisor is not None and divisor > 0 else config.dictionary_divisor(),
            dict_max_cardinality=config.dictionary_max_cardinality(),
            dict_size_ratio=ratio,
            dict_compression=values.lower(),
            dict_level=config.dictionary_compression_level() if level is None else level,
        )

    def of_dictionary(self) -> EncodeOptions:
        """How dictionary values are written: only their own compression is asked for."""
        if self.version < (2, 2):
            return EncodeOptions(self.version)
        return EncodeOptions(
            self.version, compression=self.dict_compression, compression_level=self.dict_level
        )
