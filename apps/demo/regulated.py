"""Around a regulated model of the sample company: enforcement that notes, a deputy, a remark, proof of who decides.

All of it by the actions that people use; a step whose ground is not there says so and changes nothing.
"""

from __future__ import annotations

from datetime import timedelta

from apps.approvals import commenting, delegating, policies
from apps.approvals.models import Comment, Delegation, Policy, PolicyVersion
from apps.catalogue.models import Model, ModelRequest
from apps.clusters.models import Cluster
from apps.core import clock, signing
from apps.core.errors import CommonsError
from apps.demo import serving_story
from apps.demo.seed import Context, Step
from apps.demo.serving_story import FRAUD, ask
from apps.demo.sharing import change_baseline
from apps.demo.story import _actor, _person
from apps.deployments import enforcement, placement_statement_making
from apps.deployments.choices import EnforcementMode
from apps.deployments.models import Enforcement, PlacementStatement
from apps.metering import billing
from apps.notifications import webhooks
from apps.notifications.models import Webhook

#: Minutes that a decider's last proof of who they are may be old.
PROOF_MINUTES = 10
WEBHOOK = "Tickets for compliance"


def enforced(context: Context) -> str:
    """Have the cluster note what it would refuse where financial data are; the next baseline brings it into force."""
    said: list[str] = []
    if not Model.objects.filter(slug=FRAUD.slug).exists():
        return "there is no regulated model"
    for workspace in serving_story.workspaces_of(FRAUD):
        if Enforcement.objects.filter(workspace=workspace).exists():
            continue
        try:
            enforcement.set_mode(
                workspace.pk, EnforcementMode.AUDIT, "Notes before it refuses: a month to look at them.",
                actor=_actor(context, "admin"),
            )  # fmt: skip
        except CommonsError as error:
            said.append(f"{workspace.namespace}: {error}")
            continue
        cluster: Cluster = workspace.cluster
        applied = change_baseline(context, cluster, "What notes models without approval in regulated workspaces.")
        said.append(f"{workspace.namespace} notes" + ("" if applied else ", once its baseline is applied"))
    return ", ".join(said) or "as before"


def proof(context: Context) -> str:
    """Have whoever decides on a version prove who they are; the next version of the fraud model is asked for so."""
    policy = Policy.objects.filter(slug="model-versions").first()
    newest = PolicyVersion.objects.filter(policy=policy).order_by("-number").first() if policy is not None else None
    if policy is None or newest is None:
        return "there is no policy"
    said = []
    if "reauthenticate_minutes" not in newest.body:
        body = {**newest.body, "reauthenticate_minutes": PROOF_MINUTES}
        policies.publish_policy(policy.slug, policy.name, policy.subject_type, body, actor=_actor(context, "admin"))
        said.append(f"a proof at most {PROOF_MINUTES} minutes old")
    said.append(ask(context, FRAUD, "2.2.0", "", ""))
    return ", ".join(text for text in said if text) or "as before"


def remark(context: Context) -> str:
    """Compliance says something to one control of what waits."""
    asked = ModelRequest.objects.filter(
        model_version__model__slug=FRAUD.slug, model_version__label="2.2.0", approval__isnull=False
    ).first()  # fmt: skip
    approval = asked.approval if asked is not None else None
    if approval is None or Comment.objects.filter(request=approval).exists():
        return "as before"
    known = [name for name, _ in commenting.anchors(approval)]
    anchor = next((name for name in known if "house-evaluation" in name), "")
    commenting.comment(
        approval.uid, anchor, "Was the slice of new visitors drawn before or after the threshold was set?",
        actor=_actor(context, "compliance"),
    )  # fmt: skip
    return "one comment"


def standing_in(context: Context) -> str:
    """The VP's holiday: the head of the group stands in for two weeks."""
    giver, delegate = _person(context, "vp"), _person(context, "group-owner")
    if Delegation.objects.filter(giver=giver).exists():
        return "as before"
    at = clock.now()
    delegating.create(
        giver.pk, delegate.pk, "unit_owner", start=at, end=at + timedelta(days=14),
        reason="On leave for two weeks.", actor=_actor(context, "vp"),
    )  # fmt: skip
    return "one person stands in"


def webhook(context: Context) -> str:
    """A webhook to a reserved address, switched off: nothing leaves the sample company."""
    if Webhook.objects.filter(name=WEBHOOK).exists():
        return "as before"
    webhooks.create_webhook(
        WEBHOOK, "https://tickets.example.com/hooks/gpu-commons", ["approvals", "catalogue"],
        actor=_actor(context, "admin"), enabled=False,
    )  # fmt: skip
    return "one, switched off"


def placement(context: Context) -> str:
    """Sign where regulated models ran in the last month that is over: nowhere, before the sample company began."""
    month = billing.previous(billing.month_of(clock.now()))
    if PlacementStatement.objects.filter(month=month).exists():
        return "as before"
    if not signing.can_sign():
        return "there is no signing key"
    made = placement_statement_making.make(month)
    return f"{month:%B %Y}: {made.lines} lines" if made is not None else "waits for its hours"


#: Before the models' endpoints: the cluster notes what comes from then on.
BEFORE: tuple[Step, ...] = (Step("Enforcement that notes, with a baseline", enforced),)
#: Once models are approved and serve.
AFTER: tuple[Step, ...] = (
    Step("A proof of who decides on versions", proof),
    Step("A remark on a control", remark),
    Step("Somebody stands in", standing_in),
    Step("A webhook that is switched off", webhook),
    Step("Where regulated models ran last month", placement),
)
