"""Who may do what: access reviews for what the portal needs, and the answer to a token nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from apps.clusters import errors, kinds
from apps.clusters.clients.kubernetes import KubernetesClient

pytestmark = pytest.mark.cluster


def _may(api: KubernetesClient, verb: str, kind: str, **more: str) -> Any:
    entry = kinds.KINDS[kind]
    group = entry.api_version.partition("/")[0] if "/" in entry.api_version else ""
    attributes = {"verb": verb, "group": group, "resource": entry.plural, **more}
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }  # fmt: skip
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = api._call("POST", path, body=review, content_type="application/json")
    assert answer.status == 201
    return answer.object["status"]["allowed"]


@pytest.mark.requirement("clusters-3.3")
def test_access_reviews_answer_for_every_kind(api: KubernetesClient) -> None:
    """Also for kinds that the cluster does not serve: rights are asked before something is installed."""
    for kind in kinds.DECLARABLE:
        for verb in ("get", "list", "watch", "patch", "create", "delete"):
            assert _may(api, verb, kind) is True, (verb, kind)
    assert _may(api, "patch", "ClusterQueue", subresource="status") is True


@pytest.mark.requirement("clusters-2.3")
def test_an_unknown_token_is_unauthorised(api: KubernetesClient) -> None:
    """A revoked one looks the same."""
    ca = api._ca_pem
    stranger = KubernetesClient(api.url, token="revoked", ca_pem=ca)
    with pytest.raises(errors.Unauthorised):
        stranger.list("Namespace")
    stranger.close()
