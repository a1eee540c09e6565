"""The step-by-step check of a cluster: network only, no database. Each step says what was found and what to do.

A step that makes the others impossible (no address, no answer, no trust, no sign-in) ends the check; the others are
then reported as skipped. The token is never part of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from apps.clusters import detecting, rights
from apps.clusters.addresses import check_address
from apps.clusters.capabilities import Capabilities
from apps.clusters.clients import tls
from apps.clusters.clients.kubernetes import Answer, KubernetesClient
from apps.clusters.errors import AddressRefused, ClusterError, Forbidden, ServerError, Unauthorised
from apps.clusters.installed import installed_steps, nodes_step
from apps.clusters.kubeconfigs import token_expiry
from apps.clusters.rbac import PARTS
from apps.clusters.steps import FAILED, OK, SKIPPED, TITLES, WARNING, Step, sentence, step
from apps.core import clock, formats

#: What the portal was tested with; older ones lack what it declares.
OLDEST_MINOR, NEWEST_MINOR = 29, 37
#: Certificates and tokens that end sooner are warned of.
WARN_BEFORE = timedelta(days=30)
#: How far apart the clocks may be.
CLOCK_TOLERANCE_SECONDS = 30.0
#: Longest wait for a connection, and for an answer, in seconds.
CONNECT_SECONDS, READ_SECONDS = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is checked. `used`: keys of the parts (rbac.PARTS) that the portal uses there already."""

    api_url: str
    ca_certificate: str
    token: str = field(repr=False)
    used: frozenset[str] = frozenset()


@dataclass(slots=True)
class Result:
    """What a check found beside its steps; None where it did not get so far. `error`: why the cluster is unusable."""

    steps: list[Step] = field(default_factory=list)
    version: str | None = None
    certificate_expires_at: datetime | None = None
    credentials_expire_at: datetime | None = None
    signed_in: bool = False
    capabilities: Capabilities | None = None
    error: ClusterError | None = None


class _Over(Exception):
    """A step failed without which no other one makes sense."""


def cannot_begin(why: str) -> Result:
    """Return the result of a check that had no token to sign in with."""
    result = Result(error=Unauthorised(why))
    for key in TITLES:
        if key == "signin":
            detail = "The stored credentials cannot be opened with the keys in force (COMMONS_CREDENTIALS_KEY)."
            advice = "Put the missing key back behind the newest one, or replace the credentials."
            result.steps.append(step(key, FAILED, detail, advice))
        else:
            result.steps.append(step(key, SKIPPED, "Not tried, because the credentials cannot be opened."))
    return result


def run(target: Target, report: Callable[[Result], None]) -> Result:
    """Check `target` and return what was found; `report` is called after each step.

    Raises nothing of the cluster's making: what goes wrong there is a failed step.
    """
    result = Result()
    try:
        for taken in _steps(target, result):
            result.steps.append(taken)
            report(result)
    except _Over:
        report(result)
    except ClusterError as error:  # it was there a step ago
        done = {taken.key for taken in result.steps}
        key = next(key for key in TITLES if key not in done)
        result.error = error
        result.steps.append(
            step(key, FAILED, sentence(error.message), "Check again; if it stays so, look at the server.")
        )
        report(result)
    done = {taken.key for taken in result.steps}
    failed = next((taken for taken in result.steps if taken.outcome == FAILED), None)
    for key in TITLES:
        if key not in done and failed is not None and result.capabilities is None:
            result.steps.append(step(key, SKIPPED, f"Not tried, because “{failed.title}” failed."))
    report(result)
    return result


def _steps(target: Target, result: Result) -> Iterator[Step]:
    def end(key: str, error: ClusterError, advice: str, detail: str = "") -> Step:
        result.error = error
        return step(key, FAILED, detail or sentence(error.message), advice)

    parts = urlsplit(target.api_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        check_address(target.api_url, resolve=False)
    except AddressRefused as error:
        yield end("address", error, "Use the API server's own address; an operator sets the networks that are allowed.")
        raise _Over from error
    try:
        tls.connect(host, port, seconds=CONNECT_SECONDS).close()
    except AddressRefused as error:
        yield end("address", error, "The name leads where the portal must not call. Have it corrected, or use another.")
        raise _Over from error
    except ClusterError as error:
        yield step("address", OK, f"{host}:{port}")
        yield end("reach", error, "Is the address right, and does a firewall let the portal's workers through?")
        raise _Over from error
    yield step("address", OK, f"{host}:{port}")
    yield step("reach", OK, f"{host}:{port} accepts connections.")
    yield from _tls(target, result, host, port, secure=secure)
    client = KubernetesClient(
        target.api_url, token=target.token, ca_pem=target.ca_certificate, connect_seconds=CONNECT_SECONDS,
        read_seconds=READ_SECONDS,
    )  # fmt: skip
    try:
        answer, taken = _sign_in(client, target, result)
        yield taken
        yield _clock(answer)
        version = str(answer.object.get("gitVersion") or "")
        result.version = version
        yield _version(version)
        yield from _inside(client, target, result, version)
    finally:
        client.close()


def _tls(target: Target, result: Result, host: str, port: int, *, secure: bool) -> Iterator[Step]:
    if not secure:
        detail = "The address begins with http://, so the token travels in the clear."
        yield step("tls", WARNING, detail, "Use the https address of the API server.")
        return
    try:
        found = tls.look(host, port, ca_pem=target.ca_certificate, seconds=CONNECT_SECONDS)
    except ClusterError as error:
        result.error = error
        yield step("tls", FAILED, sentence(error.message), "Is this the API server's secure port (often 6443)?")
        raise _Over from error
    result.certificate_expires_at = found.not_after
    if found.problem:
        result.error = ServerError(found.problem)
        yield step("tls", FAILED, found.problem, found.advice)
        raise _Over
    until = formats.datetime_utc(found.not_after)
    if found.not_after is not None and found.not_after - clock.now() < WARN_BEFORE:
        detail = f"The certificate is valid for {host}, but only until {until}."
        yield step("tls", WARNING, detail, "Renew the API server's certificate before then.")
        return
    yield step("tls", OK, f"Valid for {host} until {until}, issued by {found.issuer}.")


def _sign_in(client: KubernetesClient, target: Target, result: Result) -> tuple[Answer, Step]:
    result.credentials_expire_at = token_expiry(target.token)
    try:
        answer = client.hello()
        name = detecting.whoami(client)
    except Unauthorised as error:
        ends = result.credentials_expire_at
        over = f" By its own word it ended on {formats.datetime_utc(ends)}." if ends and ends <= clock.now() else ""
        result.error = error
        result.steps.append(
            step("signin", FAILED, f"The cluster does not take the token (HTTP 401).{over}",
                "Create a new one for the portal's service account and replace the credentials. A token also ends when"
                " its service account is deleted.",
            )
        )  # fmt: skip
        raise _Over from error
    except ClusterError as error:
        result.error = error
        result.steps.append(step("signin", FAILED, *_no_api(error)))
        raise _Over from error
    result.signed_in = True
    if name == "system:anonymous":
        result.error = Unauthorised("the cluster takes the portal for an anonymous caller")
        detail = "The cluster answers, but takes the portal for an anonymous caller."
        result.steps.append(step("signin", FAILED, detail, "Replace the credentials by a service account's token."))
        raise _Over
    who = f"Signed in as {name}." if name else "Signed in."
    ends = result.credentials_expire_at
    if ends is None:
        return answer, step("signin", OK, f"{who} The token does not say when it ends.")
    until = formats.datetime_utc(ends)
    if ends - clock.now() < WARN_BEFORE:
        detail = f"{who} The token ends on {until}."
        return answer, step("signin", WARNING, detail, "Create a new one and replace the credentials.")
    return answer, step("signin", OK, f"{who} The token ends on {until}.")


def _no_api(error: ClusterError) -> tuple[str, str]:
    """Return detail and advice for an answer that no API server gives."""
    if 300 <= error.status < 400:
        return (
            f"The server redirects elsewhere (HTTP {error.status}), which the portal does not follow.",
            "A sign-in page or a gateway stands in front of the API. Use the API server's own address.",
        )
    if "not JSON" in error.message or "not an object" in error.message:
        return (
            "The answer is a web page or something else, not JSON.",
            "This is no Kubernetes API. Use the API server's own address, without a path to a console.",
        )
    if isinstance(error, Forbidden):
        return (f"The cluster refuses /version: {sentence(error.message)}", "Apply what the portal needs (see there).")
    return sentence(error.message), "Check again; if it stays so, look at the API server or what stands in front of it."


def _clock(answer: Answer) -> Step:
    if answer.date is None:
        return step("clock", SKIPPED, "The server does not tell its time.")
    # The header is cut to whole seconds and was written somewhere within the call.
    behind = (clock.now() - answer.date).total_seconds() - 0.5 - answer.ms / 2000
    if abs(behind) <= CLOCK_TOLERANCE_SECONDS:
        return step("clock", OK, "The cluster's clock and this machine's agree.")
    how = formats.duration(timedelta(seconds=round(abs(behind))))
    detail = f"The cluster's clock is {how} {'behind' if behind > 0 else 'ahead of'} this machine's."
    return step("clock", WARNING, detail, "Have both follow a time server: tokens and certificates depend on it.")


def _version(version: str) -> Step:
    minor = Capabilities(kubernetes_version=version).minor
    span = f"1.{OLDEST_MINOR} to 1.{NEWEST_MINOR}"
    if minor is None:
        detail = (
            f"{version} names no version of Kubernetes 1.x." if version else "The server does not tell its version."
        )
        advice = f"Supported are {span}. If it is one of them, most likely everything works; see the other steps."
        return step("version", WARNING, detail, advice)
    if minor < OLDEST_MINOR:
        return step("version", FAILED, f"{version} is too old.", f"Upgrade the cluster: supported are {span}.")
    if minor > NEWEST_MINOR:
        advice = f"Tested are {span}; most likely it works. Try it with a workspace that nobody depends on."
        return step("version", WARNING, f"{version} is newer than what the portal was tested with.", advice)
    return step("version", OK, version)


def _inside(client: KubernetesClient, target: Target, result: Result, version: str) -> Iterator[Step]:
    try:
        groups = detecting.api_groups(client.groups())
        yield step("apis", OK, f"{len(groups)} API groups.")
    except Forbidden as error:
        groups = {}
        yield step("apis", FAILED, sentence(error.message), "Apply what the portal needs there.")
    present = {
        "kueue": "kueue.x-k8s.io", "serving": "serving.kserve.io", "autoscaling": "keda.sh",
        "routes": "gateway.networking.k8s.io",
    }  # fmt: skip
    for part in PARTS:
        if part.key in present and present[part.key] not in groups and part.key not in target.used:
            detail = "Not asked for: it was not found on this cluster."
            yield step(f"rights-{part.key}", SKIPPED, detail)
        else:
            yield rights.check(client, part, used=part.required or part.key in target.used)
    nodes, taken = nodes_step(client)
    yield taken
    result.capabilities = found = detecting.detect(client, version=version, nodes=nodes)
    yield from installed_steps(found, kueue_used="kueue" in target.used)


__all__ = ["Result", "Target", "cannot_begin", "run"]
