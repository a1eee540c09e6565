"""Whoever applies the generated roles passes every step about rights; without a rule, the right step says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from apps.clusters import preflight, rbac
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Forbidden, InvalidObject, NotFound
from tests.cluster.conftest import await_that

pytestmark = pytest.mark.cluster


class Account:
    """The service account that the generated manifests make, on the cluster under test."""

    def __init__(self, api: KubernetesClient, space: str, simulator: Any) -> None:
        self.api = api
        self.options = rbac.Options(guard=True, enforcement=True, namespace=space, account=space)
        files = [file for file in rbac.settings_files(self.options) if self._exists(file.namespace)]
        self.manifests = [*rbac.manifests(self.options), *(m for file in files for m in file.objects)]
        for manifest in self.manifests:
            api.apply(manifest)
        if simulator is not None:
            self.token = simulator.token_for(self.options.username)
        else:
            path = f"/api/v1/namespaces/{space}/serviceaccounts/{space}/token"
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 3600},
            }
            answer = api._call("POST", path, body=body, content_type="application/json").object
            self.token = answer["status"]["token"]

    def _exists(self, namespace: str) -> bool:
        """Settings of Kueue and KServe are read from namespaces of theirs, which need not exist here."""
        try:
            self.api.get("Namespace", namespace)
        except NotFound:
            return False
        return True

    @property
    def role(self) -> dict[str, Any]:
        return next(m for m in self.manifests if m["kind"] == "ClusterRole")

    def check(self) -> dict[str, preflight.Step]:
        """Run the whole check with the account's token; all parts count as used."""
        used = frozenset(part.key for part in rbac.PARTS)
        ca = self.api._ca_pem
        target = preflight.Target(self.api.url, ca, self.token, used)
        return {step.key: step for step in preflight.run(target, lambda _: None).steps}

    def until(self, condition: Any) -> dict[str, preflight.Step]:
        """Check until `condition` holds: a real authoriser sees a changed role a moment later."""

        def look() -> Any:
            steps = self.check()
            return steps if condition(steps) else None

        found: dict[str, preflight.Step] = await_that(look, seconds=20)
        return found

    def remove(self) -> None:
        """Delete what is cluster-wide; the session deletes the namespace."""
        for manifest in self.manifests:
            meta = manifest["metadata"]
            if manifest["kind"] not in ("Namespace", "ServiceAccount"):
                try:
                    self.api.delete(manifest["kind"], meta["name"], meta.get("namespace", ""))
                except ClusterError:
                    continue


@pytest.fixture
def account(api: KubernetesClient, space: str, request: pytest.FixtureRequest) -> Iterator[Account]:
    """The account, applied."""
    import os

    real = bool(os.environ.get("COMMONS_TEST_KUBECONFIG"))
    made = Account(api, space, None if real else request.getfixturevalue("simulator"))
    yield made
    made.remove()


def _rights(steps: dict[str, preflight.Step]) -> list[preflight.Step]:
    """The steps about rights of parts whose rights do not depend on foreign namespaces."""
    return [steps[f"rights-{part.key}"] for part in rbac.PARTS if part.key not in ("kueue", "serving")]


@pytest.mark.requirement("cluster-onboarding-1.2", "cluster-onboarding-2.7")
def test_what_is_generated_is_all_that_is_asked_for(account: Account) -> None:
    """Every right is there; of Kueue and KServe all but their settings, where they have no namespace."""
    steps = account.until(lambda found: all(step.outcome == "ok" for step in _rights(found)))
    assert steps["signin"].outcome in ("ok", "warning")
    assert account.options.username in steps["signin"].detail
    for key in ("rights-kueue", "rights-serving"):
        assert all(" configmaps " in item for item in steps[key].items), steps[key]
    for step in steps.values():
        assert account.token not in repr(step)


@pytest.mark.requirement("cluster-onboarding-2.7")
@pytest.mark.parametrize(
    ("resource", "key", "words"),
    [
        ("resourcequotas", "rights-workspaces", "patch resourcequotas"),
        ("clusterroles", "rights-workspaces", "bind clusterroles.rbac.authorization.k8s.io edit"),
        ("jobs", "rights-stopping", "patch jobs.batch"),
        ("validatingadmissionpolicies", "rights-guard", "create validatingadmissionpolicies"),
    ],
)
def test_a_missing_rule_fails_the_right_step(account: Account, resource: str, key: str, words: str) -> None:
    """And no other one."""
    account.until(lambda found: all(step.outcome == "ok" for step in _rights(found)))
    role = account.role
    for rule in role["rules"]:
        if resource in rule.get("resources", []):
            rule["resources"] = [name for name in rule["resources"] if name != resource] or ["none"]
    account.api.apply(role)
    steps = account.until(lambda found: found[key].outcome == "failed")
    assert any(item.startswith(words) for item in steps[key].items), steps[key].items
    sharing = {f"rights-{need.part}" for need in rbac.NEEDS if need.resource == resource}
    assert all(step.outcome == "ok" for step in _rights(steps) if step.key not in sharing)


@pytest.mark.requirement("cluster-onboarding-1.2")
def test_the_generated_role_suffices_for_enforcement(account: Account, served: frozenset[str]) -> None:
    """Whoever makes a policy with parameters has to be allowed to read them: type first, then policies and bindings."""
    from apps.deployments import admission
    from tests.cluster.fixtures import LABELS

    if "admissionregistration.k8s.io" not in served:
        pytest.skip("admissionregistration.k8s.io is not served on this cluster")
    client = KubernetesClient(account.api.url, token=account.token, ca_pem=account.api._ca_pem)
    there = _there(account.api)
    try:
        for manifest in admission.policies(LABELS):
            mine = manifest["metadata"]
            if manifest["kind"] != "CustomResourceDefinition":
                mine["name"] = mine["name"].replace("gpu-commons", account.options.account, 1)
            if manifest["kind"] == "ValidatingAdmissionPolicyBinding":
                manifest["spec"]["policyName"] = mine["name"].rpartition("-")[0]
                manifest["spec"]["matchResources"]["namespaceSelector"] = {"matchLabels": {mine["name"][:60]: "none"}}
            await_that(lambda manifest=manifest: _taken(client, manifest), seconds=20)
    finally:
        client.close()
        if not there:
            account.api.delete("CustomResourceDefinition", admission.CRD_NAME)


def _there(api: KubernetesClient) -> bool:
    from apps.deployments import admission

    try:
        api.get("CustomResourceDefinition", admission.CRD_NAME)
    except NotFound:
        return False
    return True


def _taken(client: KubernetesClient, manifest: dict[str, Any]) -> bool:
    try:
        client.apply(manifest)
    except Forbidden:  # a role is seen a moment later, a new type, too
        return False
    except InvalidObject as error:
        if "paramKind" not in str(error):
            raise
        return False  # so long as the server does not know the new type it wants rights on "all objects" for it
    return True
