"""Logs as lines of JSON on standard error."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Any

_LOGGER = logging.getLogger("graphprog.serve")


class JsonLines(logging.Formatter):
    """Each record as a line of JSON: time (UTC), level, event, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Write a line.

    Args:
        event: what happened, one word or two.
        level: of :mod:`logging`.
        fields: values of JSON by name.
    """
    _LOGGER.log(level, event, extra={"fields": fields})


def log_to_stderr(quiet: bool = False) -> None:
    """Send the lines of this server, and of uvicorn, to standard error.

    Args:
        quiet: only warnings and errors.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in ("graphprog.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING if quiet or name == "uvicorn" else logging.INFO)
