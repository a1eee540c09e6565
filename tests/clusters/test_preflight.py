"""What a check says about a server that is not as it should be."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.clusters import preflight
from apps.clusters.kubeconfigs import token_expiry
from apps.clusters.rbac import PARTS
from apps.clusters.steps import TITLES, Step
from apps.core import clock
from tests.clusters.tls_servers import Api, Authority


def _jwt(**claims: Any) -> str:
    def part(data: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.c2ln"


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority that the portal is given."""
    return Authority()


@pytest.fixture
def good(authority: Authority, tmp_path: Path) -> Iterator[Api]:
    """A server in order."""
    made = Api(authority.issue(tmp_path))
    yield made
    made.close()


def _check(
    api: Api, ca: str = "", token: str = "a-secret-token", used: frozenset[str] = frozenset()
) -> dict[str, Step]:
    seen: list[int] = []
    result = preflight.run(preflight.Target(api.url, ca, token, used), lambda r: seen.append(len(r.steps)))
    assert seen == sorted(seen)
    assert [step.key for step in result.steps] == [key for key in TITLES if key in {s.key for s in result.steps}]
    assert token not in repr(result)
    return {step.key: step for step in result.steps}


@pytest.mark.requirement("cluster-onboarding-2.1", "cluster-onboarding-2.2", "cluster-onboarding-2.7")
def test_a_server_in_order_passes_every_step(good: Api, authority: Authority) -> None:
    """At most five questions at a time; what is not installed is not asked for."""
    steps = _check(good, authority.pem)
    assert list(steps) == list(TITLES)
    for key in ("address", "reach", "tls", "signin", "clock", "version", "apis", "guard"):
        assert steps[key].outcome == "ok", steps[key]
    assert "system:serviceaccount:gpu-commons:gpu-commons" in steps["signin"].detail
    assert steps["rights-workspaces"].detail == "All 37 rights are there."
    assert steps["rights-kueue"].outcome == "skipped"
    assert {r["resourceAttributes"]["group"] for r in good.reviews if "resourceAttributes" in r} >= {"", "batch"}
    assert not any("kueue" in str(r) for r in good.reviews)
    assert 1 < good.most_at_once <= 5
    assert steps["nodes"].outcome == "warning"
    assert "GPU feature discovery" in steps["nodes"].advice


@pytest.mark.requirement("cluster-onboarding-2.3", "cluster-onboarding-2.2")
@pytest.mark.parametrize(
    ("issue", "own", "says", "advice"),
    [
        ({"days": (-300, -3)}, True, "expired on", "Renew the certificate"),
        ({"days": (2, 300)}, True, "not valid yet", "clocks"),
        (
            {"address": "192.0.2.9"},
            True,
            "not for 127.0.0.1; it names api.example.com, 192.0.2.9",
            "one of these names",
        ),
        ({}, False, "issued by Somebody else, not by the CA certificate given here", "certificate-authority-data"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(
    authority: Authority, tmp_path: Path, issue: dict[str, Any], own: bool, says: str, advice: str
) -> None:
    """Which of the four it is, and the token is not sent."""
    issuer = authority if own else Authority("Somebody else")
    api = Api(issuer.issue(tmp_path, **issue))
    try:
        steps = _check(api, authority.pem)
    finally:
        api.close()
    assert steps["tls"].outcome == "failed"
    assert says in steps["tls"].detail
    assert advice in steps["tls"].advice
    assert all(steps[key].outcome == "skipped" for key in list(TITLES)[3:])
    assert api.tokens == []


@pytest.mark.requirement("cluster-onboarding-2.3")
def test_an_authority_that_nobody_gave_is_named(authority: Authority, good: Api) -> None:
    """Without a CA certificate the system's store counts."""
    step = _check(good)["tls"]
    assert "issued by Test authority, which this machine does not know" in step.detail
    assert "CA certificate" in step.advice


@pytest.mark.requirement("cluster-onboarding-2.4")
def test_ends_within_thirty_days_are_warned_of(authority: Authority, tmp_path: Path) -> None:
    """Of the certificate and of the token, and both are kept."""
    api = Api(authority.issue(tmp_path, days=(-1, 20)))
    ends = clock.now() + timedelta(days=5)
    try:
        result = preflight.run(
            preflight.Target(api.url, authority.pem, _jwt(exp=int(ends.timestamp()))), lambda _: None
        )
    finally:
        api.close()
    steps = {step.key: step for step in result.steps}
    assert steps["tls"].outcome == steps["signin"].outcome == "warning"
    assert result.certificate_expires_at is not None
    assert abs(result.certificate_expires_at - clock.now() - timedelta(days=20)) < timedelta(minutes=5)
    assert result.credentials_expire_at == ends.replace(microsecond=0)


@pytest.mark.requirement("cluster-onboarding-2.4")
@pytest.mark.parametrize(
    "token",
    ["opaque", "a.b.c", "..", _jwt(), _jwt(exp="soon"), _jwt(exp=True), _jwt(exp=1e300), _jwt(exp=-1e300), "ä.ö.ü"],
)
def test_a_token_that_does_not_say_when_it_ends(token: str) -> None:
    """Whatever it is, reading it does no harm."""
    assert token_expiry(token) is None


@pytest.mark.requirement("cluster-onboarding-4.5", "cluster-onboarding-2.2")
def test_a_token_that_is_refused_is_explained(good: Api, authority: Authority) -> None:
    """With when it ended by its own word."""
    good.answers["/version"] = lambda: (401, {"kind": "Status", "code": 401, "message": "Unauthorized"}, {})
    old = _jwt(exp=int((clock.now() - timedelta(days=1)).timestamp()))
    steps = _check(good, authority.pem, old)
    assert steps["signin"].outcome == "failed"
    assert "401" in steps["signin"].detail
    assert "By its own word it ended on" in steps["signin"].detail
    assert steps["version"].outcome == "skipped"


@pytest.mark.requirement("cluster-onboarding-2.5")
@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((302, b"", {"Location": "https://sso.example.com/"}), "redirects elsewhere (HTTP 302)"),
        ((200, b"<html>Sign in</html>", {"Content-Type": "text/html"}), "a web page or something else, not JSON"),
        ((200, [1], {}), "not JSON"),
        ((503, b"<html>gateway</html>", {}), "HTTP 503"),
    ],
)
def test_what_is_no_api_is_told_plainly(good: Api, authority: Authority, reply: Any, says: str) -> None:
    """A sign-in page, a console, a gateway."""
    good.answers["/version"] = lambda: reply
    step = _check(good, authority.pem)["signin"]
    assert step.outcome == "failed"
    assert says in step.detail
    assert step.advice


@pytest.mark.requirement("cluster-onboarding-2.6")
@pytest.mark.parametrize(
    ("version", "outcome", "says"),
    [
        ("v1.28.15", "failed", "too old"), ("v1.29.0", "ok", "v1.29.0"), ("v1.37.4-gke.1", "ok", "v1.37.4"),
        ("v1.38.0", "warning", "newer"), ("", "warning", "1.29 to 1.37"),
    ],
)  # fmt: skip
def test_versions(good: Api, authority: Authority, version: str, outcome: str, says: str) -> None:
    """Too old fails, too new warns."""
    good.version = version
    step = _check(good, authority.pem)["version"]
    assert step.outcome == outcome
    assert says in step.detail + step.advice


@pytest.mark.requirement("cluster-onboarding-2.8")
@pytest.mark.parametrize(("skew", "says"), [(-95.0, "behind this"), (120.0, "ahead of"), (10.0, "")])
def test_clocks_that_differ_are_noticed(good: Api, authority: Authority, skew: float, says: str) -> None:
    """More than thirty seconds, either way."""
    good.skew = skew
    step = _check(good, authority.pem)["clock"]
    assert step.outcome == ("warning" if says else "ok")
    assert says in step.detail


@pytest.mark.requirement("cluster-onboarding-2.7")
def test_missing_rights_name_what_breaks(good: Api, authority: Authority) -> None:
    """A required one fails, another one warns, unless the portal uses that part already."""
    good.groups["kueue.x-k8s.io"] = ["v1beta2", "v1beta1"]
    good.denied = {("patch", "resourcequotas"), ("patch", "jobs"), ("create", "clusterqueues")}
    steps = _check(good, authority.pem)
    assert steps["rights-workspaces"].outcome == "failed"
    assert steps["rights-workspaces"].items == [
        "patch resourcequotas: without it no workspace can be set up or changed"
    ]
    assert steps["rights-stopping"].outcome == "warning"
    assert steps["rights-kueue"].outcome == "warning"
    assert steps["rights-inventory"].outcome == "ok"
    assert _check(good, authority.pem, used=frozenset({"kueue"}))["rights-kueue"].outcome == "failed"
    good.denied = {
        (verb, "validatingadmissionpolicies") for verb in ("get", "list", "watch", "create", "patch", "delete")
    }
    good.denied |= {(verb, f"{r}bindings") for verb, r in good.denied for r in ["validatingadmissionpolicy"]}
    assert _check(good, authority.pem)["rights-guard"].outcome == "skipped"


@pytest.mark.requirement("cluster-onboarding-2.2")
def test_a_plain_address_warns_and_a_closed_port_says_so(good: Api, authority: Authority) -> None:
    """Reachable in the clear; not reachable; no TLS where TLS was expected."""
    plain = Api(None)
    try:
        steps = _check(plain)
        assert steps["tls"].outcome == "warning"
        assert "in the clear" in steps["tls"].detail
        result = preflight.run(preflight.Target(plain.url.replace("http:", "https:"), "", "t"), lambda _: None)
        assert "does not speak TLS" in next(s.detail for s in result.steps if s.key == "tls")
    finally:
        plain.close()
    result = preflight.run(preflight.Target(plain.url, "", "t"), lambda _: None)
    assert [(s.key, s.outcome) for s in result.steps][:3] == [
        ("address", "ok"), ("reach", "failed"), ("tls", "skipped"),
    ]  # fmt: skip
    refused = preflight.run(preflight.Target("https://169.254.169.254", "", "t"), lambda _: None)
    assert "metadata" in refused.steps[0].detail
    assert all(s.outcome == "skipped" for s in refused.steps[1:])


@pytest.mark.requirement("cluster-onboarding-2.2")
def test_a_server_that_goes_away_in_between_ends_the_check(good: Api, authority: Authority) -> None:
    """The step at which it happened fails, the rest is skipped."""
    good.answers["/api/v1/nodes"] = lambda: (500, {"kind": "Status", "message": "etcd is gone"}, {})
    steps = _check(good, authority.pem)
    assert steps["rights-guard"].outcome == "ok"
    assert (steps["nodes"].outcome, steps["kueue"].outcome) == ("failed", "skipped")
    assert "Etcd is gone" in steps["nodes"].detail


@pytest.mark.requirement("cluster-onboarding-1.2")
def test_every_part_has_a_step() -> None:
    """So that no right goes unasked."""
    assert {f"rights-{part.key}" for part in PARTS} <= set(TITLES)
