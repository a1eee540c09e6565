"""Publishing policies: every publication is a new immutable version."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.urls import reverse

from apps.accounts.models import User
from apps.approvals import deciders, events, ports
from apps.approvals.models import Policy, PolicyVersion
from apps.approvals.policy_reader import PolicyError, parse_policy, parse_text
from apps.audit import actions as audit
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.permissions import may
from apps.teams.choices import Role


def newest(policy_slug: str) -> PolicyVersion:
    """Return a policy's newest version. Raises Invalid where none is published."""
    found = PolicyVersion.objects.select_related("policy").filter(policy__slug=policy_slug).order_by("-number").first()
    if found is None:
        raise Invalid({"": "No policy is published for this yet. A platform admin has to publish one first."})
    return found


def known_names(subject_type: str) -> dict[str, list[str] | None]:
    """Return the words a body for this subject may use: `parse_policy`'s keyword arguments."""
    return {
        "roles": deciders.deciding_roles(),
        "reviewers": deciders.reviewing_roles(),
        "terms": list(ports.known_terms(subject_type)) or None,
    }


def read_text(text: str, subject_type: str = "") -> dict[str, Any]:
    """Return the body that a JSON text holds. Raises Invalid with one message a fault, each with its line.

    With the subject's type also terms that its room does not know are faults.
    """
    names = known_names(subject_type)
    try:
        return parse_text(text, roles=names["roles"] or [], reviewers=names["reviewers"], terms=names["terms"])[0]
    except PolicyError as error:
        raise Invalid({"body": [str(fault) for fault in error.faults]}) from error


@transaction.atomic
def publish_policy(
    slug: str,
    name: str,
    subject_type: str,
    body: dict[str, Any],
    *,
    actor: Actor,
    expected_version: int | None = None,
) -> PolicyVersion:
    """Publish a policy's next version (its first, where the slug is new); open requests keep theirs.

    Raises NotAllowed without the permission, Invalid for a body that is no policy or changes nothing, Conflict where
    somebody published in the meantime.
    """
    _check_permission(actor)
    names = known_names(subject_type)
    try:
        parse_policy(body, roles=names["roles"] or [], reviewers=names["reviewers"], terms=names["terms"])
    except PolicyError as error:
        raise Invalid({"body": [str(fault) for fault in error.faults]}) from error
    name, slug = name.strip(), slug.strip()
    errors = {}
    if not name or len(name) > 200:
        errors["name"] = "Give the policy a name of up to 200 characters."
    if not slug or len(slug) > 60 or not slug.replace("-", "").replace("_", "").isalnum() or not slug.isascii():
        errors["slug"] = "Use up to 60 letters, digits and hyphens."
    if errors:
        raise Invalid(errors)
    Policy.objects.get_or_create(slug=slug, defaults={"name": name, "subject_type": subject_type})
    policy = Policy.objects.select_for_update().get(slug=slug)
    if expected_version is not None and policy.version != expected_version:
        raise Conflict("Somebody published a version in the meantime.", current={"version": policy.version})
    if policy.subject_type != subject_type:
        raise Invalid({"subject_type": f"“{policy}” is for {policy.subject_type}; that cannot change."})
    latest = PolicyVersion.objects.filter(policy=policy).order_by("-number").first()
    body_digest = digest_of(body)
    if latest is not None and latest.digest == body_digest:
        raise Invalid({"body": f"This is version {latest.number} already: nothing has changed."})
    version = PolicyVersion.objects.create(
        policy=policy,
        number=(latest.number if latest else 0) + 1,
        body=body,
        digest=body_digest,
        published_at=clock.now(),
        published_by_id=actor.user_id,
    )
    policy.name = name
    policy.bump("name")
    said = events.PolicyPublished(
        policy=slug,
        name=name,
        number=version.number,
        digest=body_digest,
        path=reverse("approvals:policy-detail", kwargs={"slug": slug}),
    )
    audit.record(
        events.POLICY_PUBLISHED,
        said,
        actor=actor,
        subject_type="approvals.policy",
        subject_uid=policy.uid,
        before_digest=latest.digest if latest else "",
        after_digest=body_digest,
    )
    admins = set(deciders.holders(Role.PLATFORM_ADMIN, None)) - {actor.user_id}
    outbox.publish(events.POLICY_PUBLISHED, said, recipients=admins, subject_uid=policy.uid)
    return version


def _check_permission(actor: Actor) -> None:
    if actor.is_system:
        return
    user = User.objects.filter(pk=actor.user_id or 0).first()
    if not may(user, "approvals.policy.publish"):
        raise NotAllowed("Only platform admins publish policies.", rule="approvals.policy.publish")
