"""Structured logs: one JSON object a line, with the request id."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime

from apps.core.actor import request_id_var

_STANDARD = set(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "request_id",
    "taskName",
}
_SECRET_WORDS = ("password", "token", "secret", "authorization", "kubeconfig", "credential")
#: What secrets look like inside a text, such as an exception's: the portal's own tokens, signed tokens (RFC 7519),
#: private keys (RFC 7468), credentials of a header (RFC 9110 §11), in an address (RFC 3986 §3.2.1), after their name.
_SECRET_TEXTS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), "***"),
    (re.compile(r"\bgpu(?:c|s|ce)_[\w-]{8,}"), "***"),
    (re.compile(r"\beyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*"), "***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/-]{8,}=*"), r"\1 ***"),
    (re.compile(r"(?i)(://[^\s/:@\"']*):[^\s/@\"']+@"), r"\1:***@"),
    (re.compile(r"(?i)(\"[\w-]*(?:password|secret|token|credential)[\w-]*\"\s*:\s*)\"[^\"]*\""), r'\1"***"'),
    (
        re.compile(
            r"(?i)((?:password|passwd|secret|token|api[_-]?key|client-key-data|credentials?)[\"']?\s*[:=]\s*[\"']?)"
            r"(?![\"'\s*])[^\s\"',;}&]{4,}"
        ),
        r"\1***",
    ),
)


def without_secrets(text: str) -> str:
    """Return a text with what looks like a secret masked. Names of secrets stay, so that a line can be understood."""
    for pattern, instead in _SECRET_TEXTS:
        text = pattern.sub(instead, text)
    return text


class RequestIdFilter(logging.Filter):
    """Adds the id of the request under way to every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Attach the id; never drops a record."""
        record.request_id = request_id_var.get()
        return True


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON; values under names that sound secret are masked, and what looks secret in any text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of JSON: time (RFC 3339), level, logger, message, request id and the extra fields."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if request_id := getattr(record, "request_id", ""):
            line["request_id"] = request_id
        for key, value in record.__dict__.items():
            if key not in _STANDARD and not key.startswith("_"):
                masked = any(word in key.lower() for word in _SECRET_WORDS)
                line[key] = "***" if masked else without_secrets(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, default=lambda value: without_secrets(str(value)))
