"""Change a source of record in place: its name, address, options, and its token, which is written but never read."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from django.db import transaction

from apps import audit
from apps.clusters import crypto
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid
from apps.metering import selftest_run, source_options, waivers
from apps.metering.actions import require
from apps.metering.choices import POLLED
from apps.metering.events import SOURCE_CHANGED, SourceChanged
from apps.metering.models import Source

CHANGE = "metering.import.create"
LONGEST_NAME, LONGEST_URL, LONGEST_TOKEN = 120, 300, 4000
_NOT_THERE = "Another server gets no token that was given for the old one: give its own, or remove it."
_ONE_LINE = "A token is one line of letters, digits and signs, without spaces."
#: Changes that leave what is asked, and whom, as it was. (Everything else ends the waivers.)
_SAME_QUESTIONS = frozenset({"name", "token replaced", "token removed", "timeout_seconds", "test_seconds"})
_NOT_BOTH = "Give a new token or remove the stored one, not both."


@transaction.atomic
def change_source(
    source_id: int,
    name: str | None = None,
    url: str | None = None,
    token: str = "",
    *,
    actor: Actor,
    forget_token: bool = False,
    options: Mapping[str, object] | None = None,
    expected_version: int | None = None,
) -> Source:
    """Change what is given of a polled source, have it tested, and read what waits at once.

    `token` "" leaves the stored one; `options` replaces the named ones (`source_options`), None taking one away. Hours
    read so far stand until they are read again. Where another server is asked, or something else, waivers end and the
    verdict is unknown until the new self-test: nobody bills on what the former server could tell. Raises
    NotVisible, NotAllowed, Conflict (another version; a source that is not asked over the network), Invalid for a value
    that cannot be, for nothing to change, and for a stored token that would be sent to another server.
    """
    require(actor, CHANGE)
    source = Source.objects.locked(source_id, expected_version=expected_version)
    if source.kind not in POLLED:
        raise Conflict("Imported usage is not asked for over the network: there is nothing to change here.")
    new_name = source.name if name is None else name.strip()
    new_url = source.url if url is None else url.strip().rstrip("/")
    moved = _server(new_url) != _server(source.url)
    errors: dict[str, str | list[str]] = {**_wrong(new_name, new_url, token, forget_token)}
    given: Mapping[str, object] = {}
    try:
        given = source_options.stored(source.kind, options or {}, source.options.get("parameters"))
    except Invalid as wrong:
        errors |= wrong.errors
    kept = {**source.options, **given}
    new_options = {key: value for key, value in kept.items() if value not in (None, "", [], {})}
    if moved and source.credentials and not token and not forget_token:
        errors["token"] = _NOT_THERE
    if errors:
        raise Invalid(errors)
    changed = [
        word
        for word, differs in (
            ("name", new_name != source.name),
            ("address", new_url != source.url),
            ("token removed", forget_token and bool(source.credentials)),
            ("token replaced", bool(token)),
        )
        if differs
    ]
    changed += sorted(key for key in {*source.options, *new_options} if source.options.get(key) != new_options.get(key))
    if not changed:
        raise Invalid({"": "Nothing differs from how it stands."})
    # What was waived was that server, asked those questions. A new name, token or patience changes neither.
    other = [word for word in changed if word not in _SAME_QUESTIONS]
    ended = waivers.end_for_change(source, other, actor=actor) if other else []
    if other:
        selftest_run.void_verdict(source, other, by_id=actor.user_id)
    source.name, source.url, source.options = new_name, new_url, new_options
    if token or forget_token:
        source.credentials = crypto.encrypt(token)
    # What failed may have failed for what was changed: read without waiting for the pause to end.
    source.failures, source.retry_at = 0, None
    source.bump("name", "url", "options", "credentials", "failures", "retry_at")
    audit.record(
        SOURCE_CHANGED,
        SourceChanged(source.uid, source.cluster.uid, changed, _plain(new_url), _shown(new_options), len(ended)),
        actor=actor,
        subject_type="metering.source",
        subject_uid=source.uid,
    )
    selftest_run.request_check(source.pk, actor=actor)
    source.refresh_from_db()
    return source


def _wrong(name: str, url: str, token: str, forget_token: bool) -> dict[str, str]:
    errors: dict[str, str] = {}
    if not name or len(name) > LONGEST_NAME:
        errors["name"] = f"Give a name of at most {LONGEST_NAME} characters."
    if not url.startswith(("http://", "https://")) or len(url) > LONGEST_URL or not urlsplit(url).hostname:
        errors["url"] = "Give the address of the server, beginning with http:// or https://."
    elif "@" in urlsplit(url).netloc:
        errors["url"] = "Leave user and password out of the address: give a token."
    if len(token) > LONGEST_TOKEN or any(not " " < sign < "\x7f" for sign in token):
        errors["token"] = _ONE_LINE
    elif token and forget_token:
        errors["token"] = _NOT_BOTH
    return errors


def _server(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _plain(url: str) -> str:
    """Return an address without query, as the audit trail keeps it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _shown(options: Mapping[str, object]) -> list[str]:
    """Write options for the audit trail, without the windows of imports, of which there may be thousands."""
    return [f"{key}: {value}"[:300] for key, value in sorted(options.items()) if key != "windows"]
