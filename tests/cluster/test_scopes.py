"""Quotas by priority class: production only by scope, and what a scope may and may not count."""

from __future__ import annotations

from typing import Any

import pytest

from apps.clusters import errors
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.provisioning.diff import declared_changes
from apps.quotas.priorities import priority_manifests
from tests.cluster.conftest import await_that, fresh
from tests.cluster.fixtures import namespace, quota
from tests.cluster.helpers import pod, thing

pytestmark = pytest.mark.cluster


def _scoped(space: str, name: str, gpus: int, operator: str, *values: str) -> dict[str, Any]:
    body = quota(space, gpus, name=name)
    expression: dict[str, Any] = {"scopeName": "PriorityClass", "operator": operator}
    if values:
        expression["values"] = list(values)
    body["spec"]["scopeSelector"] = {"matchExpressions": [expression]}
    return body


@pytest.mark.requirement("simulated-operations-1.2")
def test_each_priority_has_its_own_share(api: KubernetesClient, space: str) -> None:
    """What production may hold, batch cannot take, and the other way round; the status counts each apart."""
    klass = fresh()
    api.apply(namespace(space))
    api.apply(thing("PriorityClass", klass, value=1000))
    api.apply(_scoped(space, "production", 1, "In", klass))
    api.apply(_scoped(space, "rest", 2, "NotIn", klass))
    for name in ("production", "rest"):
        await_that(lambda name=name: "used" in (api.get("ResourceQuota", name, space).get("status") or {}))
    api.create(pod(space, "served", 1, priorityClassName=klass))
    with pytest.raises(errors.Forbidden, match="exceeded quota: production"):
        api.create(pod(space, "more", 1, priorityClassName=klass))
    api.create(pod(space, "batch", 2))
    with pytest.raises(errors.Forbidden, match="exceeded quota: rest"):
        api.create(pod(space, "another", 1))

    def used(name: str) -> Any:
        return api.get("ResourceQuota", name, space)["status"]["used"]["requests.nvidia.com/gpu"]

    await_that(lambda: (used("production"), used("rest")) == ("1", "2"))


@pytest.mark.requirement("simulated-operations-1.2")
def test_priority_of_zero_gpus_shuts_a_class_out(api: KubernetesClient, space: str) -> None:
    """A scope with nothing in it is how a workspace without production is rendered."""
    klass = fresh()
    api.apply(namespace(space))
    api.apply(thing("PriorityClass", klass, value=1000))
    api.apply(_scoped(space, "none", 0, "In", klass))
    await_that(lambda: "used" in (api.get("ResourceQuota", "none", space).get("status") or {}))
    with pytest.raises(errors.Forbidden, match="exceeded quota: none"):
        api.create(pod(space, "served", 1, priorityClassName=klass))
    api.create(pod(space, "batch", 1))


@pytest.mark.requirement("simulated-operations-1.2")
@pytest.mark.parametrize(
    ("expression", "hard", "words"),
    [
        ({"scopeName": "PriorityClass", "operator": "In"}, {}, "at least one value"),
        ({"scopeName": "PriorityClass", "operator": "Exists", "values": ["x"]}, {}, "must be no value"),
        ({"scopeName": "Nope", "operator": "Exists"}, {}, "unsupported scope"),
        ({"scopeName": "PriorityClass", "operator": "Exists"}, {"configmaps": "1"}, "unsupported scope applied"),
    ],
)
def test_what_a_scope_may_not_be(
    api: KubernetesClient, space: str, expression: dict[str, Any], hard: dict[str, str], words: str
) -> None:
    """Checked by the server before anything is stored."""
    api.apply(namespace(space))
    body = quota(space, 1, **hard)
    body["spec"]["scopeSelector"] = {"matchExpressions": [expression]}
    with pytest.raises(errors.InvalidObject, match=words):
        api.apply(body, dry_run=True)


@pytest.mark.requirement("simulated-operations-1.2")
def test_priority_classes_live_as_the_portal_declares_them(api: KubernetesClient) -> None:
    """The server drops a default that is false: stating it would look as if the cluster had rewritten it."""
    for stated in priority_manifests({}, kueue=False):
        wanted = {**stated, "metadata": {"name": fresh()}}
        answer = api.apply(wanted)
        assert declared_changes(wanted, answer.object) == []
    answer = api.apply(thing("PriorityClass", fresh(), value=1, globalDefault=False))
    assert "globalDefault" not in answer.object


@pytest.mark.requirement("simulated-operations-1.2")
def test_a_priority_class_never_changes_its_value(api: KubernetesClient) -> None:
    """So a changed priority is another class."""
    klass = fresh()
    api.apply(thing("PriorityClass", klass, value=1000))
    with pytest.raises(errors.InvalidObject, match="may not be changed"):
        api.apply(thing("PriorityClass", klass, value=1001), force=True)
