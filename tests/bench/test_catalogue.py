"""Server time of the catalogue's lists and a version's page with 5,000 versions and 500 open requests behind them."""

from __future__ import annotations

import hashlib
import os
import time
from datetime import timedelta
from typing import Any

import pytest
from django.template.base import Template

from apps.approvals.models import ApprovalRequest, Grant, Policy, PolicyVersion
from apps.catalogue import manifest
from apps.catalogue.models import Model, ModelRequest, ModelVersion, VersionFile
from apps.core import clock, memory
from apps.core.canonical import digest
from tests.bench import volume
from tests.bench.test_pages import LIST, TARGET_MS, counted, cpu_ms, p95
from tests.factories import client_for, grant, make_company, make_team, make_user

pytestmark = pytest.mark.bench
TEAMS, MODELS, VERSIONS, OPEN, GRANTS, API_LIST = 50, 500, 5000, 500, 1500, 15
CLASSES = (["internal"], ["personal", "internal"], ["health", "internal"], ["cardholder"], ["public"])


def build() -> dict[str, Any]:
    """Teams, models, sealed versions with files, grants in force and requests under review: rows only."""
    company = make_company()
    teams = [make_team(f"Team {index:03}", company.unit) for index in range(TEAMS)]
    lead = make_user("lead@example.com")
    grant(lead, "team_lead", team=teams[0])
    Model.objects.bulk_create(
        Model(
            slug=f"model-{index:04}", name=f"Model {index:04}", team=teams[index % TEAMS], last_number=10,
            purpose="Scores payments before they are settled.", data_classes=CLASSES[index % 5], risk_tier="high",
        )
        for index in range(MODELS)
    )  # fmt: skip
    models = list(Model.objects.order_by("pk"))
    drafts = [
        ModelVersion(
            model=models[index % MODELS], number=index // MODELS + 1, label=f"{index // MODELS + 1}.0.0", scheme="s3",
            location=f"s3://models/{index}", author=lead, last_editor=lead, model_format="onnx", total_bytes=10**9,
            classification=CLASSES[index % 5], image=f"registry.example.com/triton@sha256:{'a' * 64}",
        )
        for index in range(VERSIONS)
    ]  # fmt: skip
    ModelVersion.objects.bulk_create(drafts, batch_size=1000)
    files = [
        VersionFile(model_version=one, path=f"model-{part}.safetensors", size=5 * 10**8,
                    sha256=hashlib.sha256(f"{one.pk} {part}".encode()).hexdigest())
        for one in drafts for part in range(2)
    ]  # fmt: skip
    VersionFile.objects.bulk_create(files, batch_size=2000)
    at = clock.now()
    for index, one in enumerate(drafts):
        raw = manifest.build(one, files[2 * index : 2 * index + 2], [], None, one.classification)
        one.manifest, one.digest, one.status, one.sealed_at = raw, digest(raw), "sealed", at
    ModelVersion.objects.bulk_update(drafts, ["manifest", "digest", "status", "sealed_at"], batch_size=500)
    policy = Policy.objects.filter(slug="model-versions").first() or Policy.objects.create(
        slug="model-versions", name="Model versions", subject_type="catalogue.version"
    )
    pinned = PolicyVersion.objects.create(policy=policy, number=900, body={}, digest="0" * 64, published_at=at)
    requests = [
        ApprovalRequest(
            policy_version=pinned, subject_type="catalogue.version", subject_uid=one.uid, subject_digest=one.digest,
            requester=lead, status="approved" if index < GRANTS else "in_review", submitted_at=at, unit=company.unit,
            team=one.model.team,
        )
        for index, one in enumerate(drafts[: GRANTS + OPEN])
    ]  # fmt: skip
    ApprovalRequest.objects.bulk_create(requests)
    Grant.objects.bulk_create(
        Grant(request=row, subject_digest=row.subject_digest, not_before=at, expires_at=at + timedelta(days=90),
              scope={"subject_type": "catalogue.version", "manifest": row.subject_digest, "clusters": ["a"]})
        for row in requests[:GRANTS]
    )  # fmt: skip
    ModelRequest.objects.bulk_create(
        ModelRequest(model_version=one, scope={}, reason="To production.", requester=lead, approval=row)
        for one, row in zip(drafts[GRANTS : GRANTS + OPEN], requests[GRANTS:], strict=True)
    )
    volume.analyze()
    return {"company": company, "lead": lead, "version": drafts[-1], "before": drafts[-1 - MODELS], "model": models[0]}


@pytest.mark.requirement("catalogue-7.1")
def test_a_catalogue_of_5000_versions(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Template, "_render", lambda self, context: self.nodelist.render(context))
    began = time.perf_counter()
    world = build()
    print(f"\n{VERSIONS:,} versions, {OPEN} open requests; written in {time.perf_counter() - began:.0f} s")
    officer, lead = client_for(world["company"].compliance), client_for(world["lead"])
    version = world["version"]
    pages = [
        ("models, all", officer, "/catalogue/models/", LIST),
        ("models, a team's", lead, "/catalogue/models/", LIST),
        ("models, by data and approval", officer, "/catalogue/models/?data_class=health&approved=true", LIST),
        ("models, not approved", officer, "/catalogue/models/?approved=false", LIST),
        ("models, by digest", officer, f"/catalogue/models/?digest={version.digest[:8]}", LIST),
        ("models, by word", officer, "/catalogue/models/?search=0042", LIST),
        ("versions, all", officer, "/catalogue/versions/", LIST),
        ("versions, last page", officer, "/catalogue/versions/?page=100", LIST),
        ("versions, approved", officer, "/catalogue/versions/?approved=true", LIST),
        ("versions, not approved", officer, "/catalogue/versions/?approved=false", LIST),
        ("versions, by digest", officer, f"/catalogue/versions/?digest={version.digest[:8]}", LIST),
        ("a model", officer, f"/catalogue/models/{world['model'].uid}/", 2 * LIST),
        ("a version", officer, f"/catalogue/versions/{version.uid}/", 2 * LIST),
        ("two versions", officer, f"/catalogue/compare/?a={world['before'].uid}&b={version.uid}", 2 * LIST),
        ("API: models", officer, "/api/v1/models", API_LIST),
        ("API: versions", officer, "/api/v1/model-versions", API_LIST),
    ]
    memory.settle()  # as portal.wsgi does
    load = os.getloadavg()[0]
    slow, many = [], []
    for name, client, path, ceiling in pages:
        statements, took = counted(client, path), p95(client, path)
        print(
            f"  {name:30} p95 {took:6.1f} ms (target {TARGET_MS}), CPU {cpu_ms(client, path):5.1f} ms,"
            f" {statements:2} statements (at most {ceiling})"
        )
        if took > TARGET_MS:
            slow.append(f"{name}: {took:.0f} ms")
        if statements > ceiling:
            many.append(f"{name}: {statements} statements, at most {ceiling}")
    print(f"  load before {load:.1f}, after {os.getloadavg()[0]:.1f}")
    assert not many, many
    assert not slow, slow
