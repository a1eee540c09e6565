"""Structured logs: one JSON object a line, with the request id."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from apps.core.actor import request_id_var

_STANDARD = set(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "request_id",
    "taskName",
}
_SECRET_WORDS = ("password", "token", "secret", "authorization", "kubeconfig", "credential")


class RequestIdFilter(logging.Filter):
    """Adds the id of the request under way to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Attach the id; never drops a record."""
        record.request_id = request_id_var.get()
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON; values under names that sound secret are masked."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON: time (RFC 3339), level, logger, message, request id and the extra fields."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := getattr(record, "request_id", ""):
            line["request_id"] = request_id
        for key, value in record.__dict__.items():
            if key not in _STANDARD and not key.startswith("_"):
                masked = any(word in key.lower() for word in _SECRET_WORDS)
                line[key] = "***" if masked else value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
