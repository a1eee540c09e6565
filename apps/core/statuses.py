"""The one status scale: every status of every room has one of five tones; nothing else carries meaning by colour."""

from __future__ import annotations

from django.db.models import Choices

POSITIVE, CAUTION, CRITICAL, INFO, NEUTRAL = "positive", "caution", "critical", "info", "neutral"

#: The icon beside the word, so that no status is told by colour alone.
ICONS = {
    POSITIVE: "circle-check",
    CAUTION: "alert-triangle",
    CRITICAL: "circle-x",
    INFO: "clock",
    NEUTRAL: "minus",
}

_WORDS = {
    POSITIVE: "active applied approved approve complete current granted healthy ok ready sent succeeded in_force"
    " verified up fits live delivered",
    CAUTION: "degraded drifted partial retrying stale unknown waiting_for_capacity waiting expiring incomplete"
    " abandoned due uncertain held",
    CRITICAL: "broken down failed missing overdue refused reject rejected stopped unreachable full",
    INFO: "applying in_review open pending queued running scheduled closing sending canary starting",
    NEUTRAL: "archived cancelled closed deactivated draft ended expired lapsed none not_sent revoked skipped superseded"
    " withdrawn",
}
_TONES: dict[str, str] = {word: tone for tone, words in _WORDS.items() for word in words.split()}


def tone_of(status: object) -> str:
    """Return the tone of a status value; what the table does not know is neutral."""
    return _TONES.get(str(getattr(status, "value", status)).lower(), NEUTRAL)


def label_of(status: object) -> str:
    """Return the word shown for a status: the label of its choices, else its value in words."""
    if isinstance(status, Choices):
        return str(status.label)
    text = str(status).replace("_", " ").replace("-", " ").strip()
    return text[:1].upper() + text[1:]
