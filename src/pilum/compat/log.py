"""The logger of the reference's Python side: `set_logger` and the level that ``LANCE_LOG`` asks for."""

from __future__ import annotations

import logging
import os

__all__ = ["get_log_level", "get_python_log_level", "set_logger"]

_LEVELS = {"trace": "DEBUG", "debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR"}


def get_log_level() -> str:
    """Level of ``LANCE_LOG``; ``INFO`` when it says nothing for the whole process."""
    for entry in os.environ.get("LANCE_LOG", "").split(","):
        if entry.strip() and "=" not in entry:
            return entry.strip().upper()
    return "INFO"


def get_python_log_level(rust_log_level: str) -> str:
    """The name that Python has for a level of Rust."""
    return _LEVELS.get(rust_log_level.lower(), "INFO")


def set_logger(
    file_path: str | None = "pylance.log",
    name: str = "pylance",
    level: int = logging.INFO,
    format_string: str | None = None,
    log_handler: logging.Handler | None = None,
) -> None:
    """Send messages of a logger to a file.

    Args:
        file_path: the file.
        name: of the logger.
        level: of messages.
        format_string: of lines.
        log_handler: used instead of a file.
    """
    logger = logging.getLogger(name)
    logger.setLevel(level)
    handler = log_handler
    if handler is None:
        handler = logging.StreamHandler() if file_path is None else logging.FileHandler(file_path)
    handler.setLevel(level)
    handler.setFormatter(
        logging.Formatter(
            format_string or "%(asctime)s %(name)s [%(levelname)s] %(filename)s:%(lineno)d : %(message)s"
        )
    )
    logger.addHandler(handler)
