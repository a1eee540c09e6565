"""The port through which model registries are read: what they say, as plain values. Nothing they say is believed.

An adapter pages through the registry's raw JSON and gives `Listed` values; `read_all` pages until two passes agree,
because offset paging shows neither a moment nor every row once (`reference`: MLflow's page token is an offset).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol
from urllib.parse import urlencode

import requests

from apps.clusters.addresses import check_address
from apps.clusters.clients.answers import parse_retry_after
from apps.clusters.clients.http import BoundedSession
from apps.clusters.errors import ClusterError, Forbidden, NotFound, ServerError, Throttled, Unauthorised

#: Bytes of one page.
MAX_ANSWER = 32 * 1024 * 1024
#: Seconds to connect, and between two pieces of an answer.
TIMEOUT = (5, 30)
#: Rows that are read of one registry; a larger one is refused by name, never cut off silently.
MAX_MODELS, MAX_VERSIONS = 20_000, 100_000
#: Pages of one listing: a registry that never ends its token is not followed for ever.
MAX_PAGES = 2_000
#: Passes until two in a row have to agree.
MAX_PASSES = 4
#: Names longer than that have no place here; tag values are kept to that length and told apart by their digest.
MAX_NAME, MAX_VALUE, MAX_TAGS = 300, 2_000, 200


class TooMuch(ClusterError):
    """The registry holds more than the portal reads."""

    code = "too_much"
    retryable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class SeenModel:
    """A registered model as a registry shows it. `key`: how the registry finds it now; `born`: when it says it was
    made, which outlives a change of name; `stable_id`: the registry's own id, where it has one."""

    key: str
    name: str
    born: str = ""
    stable_id: str = ""
    description: str = ""
    state: str = ""
    author: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """A version as a registry shows it, below the model found by `model_key`."""

    model_key: str
    number: str
    source: str = ""
    run_id: str = ""
    born: str = ""
    description: str = ""
    state: str = ""
    author: str = ""
    model_format: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a registry showed. `settled`: two passes agreed; without that, nothing may be taken for gone."""

    models: Mapping[str, SeenModel]
    versions: Mapping[tuple[str, str], SeenVersion]
    settled: bool
    passes: int
    skipped: int = 0


class RegistryClient(Protocol):
    """A registry, opened."""

    def models(self) -> Iterable[SeenModel]:
        """Yield every registered model, page by page; one may come twice. Raises ClusterError."""

    def versions(self) -> Iterable[SeenVersion]:
        """Yield every version of every model, page by page; one may come twice. Raises ClusterError."""

    def has_model(self, key: str) -> bool:
        """Ask for one model by itself. Raises ClusterError for every answer but yes and no."""

    def has_version(self, model_key: str, number: str) -> bool:
        """Ask for one version by itself. Raises ClusterError for every answer but yes and no."""

    def location(self, version: SeenVersion) -> str:
        """Return where a version's files lie, as the registry resolves it. Raises ClusterError."""

    def probe(self) -> str:
        """Ask for as little as possible and say in a sentence what was found. Raises ClusterError."""

    def close(self) -> None:
        """Close the connections."""


def text(value: Any, limit: int = MAX_VALUE) -> str:
    """Return foreign text as it can be stored: no NUL, no lone surrogate, at most `limit` characters.

    What is cut off is told apart by a digest, so that a change beyond the cut is a change.
    """
    found = value if isinstance(value, str) else "" if value is None else json.dumps(value, sort_keys=True)
    found = found.replace("\x00", "�").encode("utf-8", "replace").decode()
    if len(found) <= limit:
        return found
    mark = f"… (sha256 {hashlib.sha256(found.encode()).hexdigest()[:16]})"
    return found[: limit - len(mark)] + mark


def tags_of(pairs: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    """Return tags by name, in order. What is beyond the first `MAX_TAGS` is held together under one name."""
    found = {text(key, 250): text(value) for key, value in pairs}
    names = sorted(found)
    if len(names) > MAX_TAGS:
        rest = json.dumps([[name, found[name]] for name in names[MAX_TAGS:]])
        found = {name: found[name] for name in names[:MAX_TAGS]}
        found["…"] = f"{len(names) - MAX_TAGS} more (sha256 {hashlib.sha256(rest.encode()).hexdigest()[:16]})"
        return found
    return {name: found[name] for name in names}


def read_all(client: RegistryClient, *, on_pass: Callable[[], None] | None = None) -> Reading:
    """Page through a registry until two passes in a row agree, at most `MAX_PASSES`. Raises ClusterError.

    Without agreement the union of the last two passes is returned, not settled: what was seen is there, what was not
    seen may be there all the same.
    """
    before: tuple[dict[str, SeenModel], dict[tuple[str, str], SeenVersion]] | None = None
    skipped = 0
    for number in range(1, MAX_PASSES + 1):
        models, versions, skipped = _one_pass(client)
        if on_pass is not None:
            on_pass()
        if before == (models, versions):
            return Reading(models, versions, True, number, skipped)
        if number == MAX_PASSES and before is not None:
            return Reading(before[0] | models, before[1] | versions, False, number, skipped)
        before = (models, versions)
    raise AssertionError("the loop always returns")


def _one_pass(client: RegistryClient) -> tuple[dict[str, SeenModel], dict[tuple[str, str], SeenVersion], int]:
    models: dict[str, SeenModel] = {}
    versions: dict[tuple[str, str], SeenVersion] = {}
    skipped = set()
    for model in client.models():
        if not _usable(model.key) or not _usable(model.name):
            skipped.add(model.key[:50])
            continue
        models[model.key] = model
        if len(models) > MAX_MODELS:
            raise TooMuch(f"the registry holds more than {MAX_MODELS:,} models")
    for version in client.versions():
        if version.model_key not in models or not _usable(version.number, 100):
            continue
        versions[version.model_key, version.number] = version
        if len(versions) > MAX_VERSIONS:
            raise TooMuch(f"the registry holds more than {MAX_VERSIONS:,} versions")
    return models, versions, len(skipped)


def _usable(name: str, limit: int = MAX_NAME) -> bool:
    return 0 < len(name) <= limit and name.isprintable() and name == name.strip()


class RegistrySession(BoundedSession):
    """A session for one registry: checked connections, no redirects, bounded answers, raw JSON."""

    def __init__(self, base_url: str, credentials: Mapping[str, str], ca_file: str = "") -> None:
        super().__init__(MAX_ANSWER)
        self.base = check_address(base_url, resolve=False)
        if ca_file:
            self.verify = ca_file
        self.headers["Accept"] = "application/json"
        self.headers["Accept-Encoding"] = "identity"
        if credentials.get("token"):
            self.headers["Authorization"] = f"Bearer {credentials['token']}"
        elif credentials.get("username"):
            pair = f"{credentials['username']}:{credentials.get('password', '')}".encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"

    def get_json(self, path: str, parameters: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """Return the object that a GET answers with. Raises ClusterError."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        response = self.request("GET", f"{self.base}/{path}{query}", timeout=TIMEOUT)
        raise_for(response)
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError) as error:
            raise ServerError("the registry's answer is no JSON: is the address that of its API?") from error
        if not isinstance(body, dict):
            raise ServerError("the registry's answer is no JSON object")
        return body


def raise_for(response: requests.Response) -> None:
    """Raise the error that a status means. The registry's own words are not repeated: they may quote what was sent."""
    status = response.status_code
    if status == 200:
        return
    message = f"HTTP {status}"
    if status == 401:
        raise Unauthorised(f"the registry does not accept the credentials ({message})", status=status)
    if status == 403:
        raise Forbidden(f"the registry refuses this with these credentials ({message})", status=status)
    if status == 404:
        raise NotFound(f"the registry knows no such thing ({message})", status=status)
    if status in (429, 503):
        wait = parse_retry_after(response.headers) or 30.0
        raise Throttled(f"the registry asks for patience ({message})", retry_after=wait, status=status)
    if 300 <= status < 400:
        raise ServerError("the registry sends elsewhere: enter the address it sends to", status=status)
    raise ServerError(f"the registry failed ({message})", status=status)


def rows(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the list of objects under a name; missing means empty. Raises ServerError for anything else."""
    found = body.get(name, [])
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ServerError(f"the registry's “{name}” is no list of objects")
    return found


def pages(fetch: Callable[[str], dict[str, Any]], token_name: str) -> Iterable[dict[str, Any]]:
    """Yield page after page. Raises ServerError where the token comes back or never ends."""
    token, seen = "", set[str]()
    for _ in range(MAX_PAGES):
        body = fetch(token)
        yield body
        token = str(body.get(token_name) or "")
        if not token:
            return
        if token in seen:
            raise ServerError("the registry's pages go round in a circle")
        seen.add(token)
    raise ServerError(f"the registry has more than {MAX_PAGES:,} pages")
