"""Proposing rate cards: one person writes the prices, a second one publishes exactly these bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.urls import reverse

from apps import audit
from apps.accounts import merging
from apps.clusters.models import Cluster, Flavour
from apps.core import clock, outbox
from apps.core.actor import Actor
from apps.core.canonical import digest_of
from apps.core.errors import Conflict, Invalid, NotAllowed, NotVisible
from apps.core.events import EventType
from apps.core.money import Money
from apps.rates import events, publishing, stored_lines
from apps.rates.actions import APPROVE, MANAGE, locked_cluster, require
from apps.rates.choices import CapacityType, ProposalStatus, Resource, ServiceClass
from apps.rates.models import CapexSchedule, Rate, RateProposal, exact
from apps.rates.publishing import Change, PriceLine
from apps.teams import scope

SECOND_PERSON = "rates.proposal.second_person"
MAX_REASON = 500


def content_of(proposal: RateProposal) -> dict[str, Any]:
    """Return what is approved, as plain data: its canonical JSON is what the digest is of."""
    return {
        "name": proposal.name,
        "cluster": proposal.cluster.uid,
        "currency": proposal.currency,
        "valid_from": proposal.valid_from,
        "valid_until": proposal.valid_until,
        "note": proposal.note,
        "prices": proposal.prices,
        "proposed_by": proposal.proposed_by.uid,
    }


def lines_of(proposal: RateProposal) -> list[PriceLine]:
    """Return the proposed prices."""
    return stored_lines.load_lines(proposal.prices, publishing.flavours_of(proposal.cluster))


def plan_of(proposal: RateProposal) -> list[Change]:
    """Return what the proposal would end and begin as prices stand now. Raises Invalid where it no longer fits."""
    flavours = publishing.flavours_of(proposal.cluster)
    lines = stored_lines.load_lines(proposal.prices, flavours)
    publishing.check_lines(proposal.cluster, lines, flavours)
    return publishing.plan(
        proposal.cluster,
        lines,
        proposal.valid_from,
        proposal.valid_until,
        currency=proposal.currency,
        flavours=flavours,
    )


@dataclass(frozen=True, slots=True)
class Described:
    """A proposed price in words, with the class prices made from it and the schedule that it comes from."""

    label: str
    exact: str
    classes: list[tuple[str, Decimal, str]]
    capex: CapexSchedule | None


def described(proposal: RateProposal) -> list[Described]:
    """Return the proposed prices for reading, in their order, whatever became of them."""
    flavours = {flavour.slug: flavour for flavour in Flavour.objects.filter(pools__cluster=proposal.cluster).distinct()}
    uids = [row["capex"] for row in proposal.prices if row.get("capex")]
    schedules = {str(one.uid): one for one in CapexSchedule.objects.filter(uid__in=uids)} if uids else {}
    found = []
    for row in proposal.prices:
        slug = row.get("flavour", "")
        what = str(flavours.get(slug, slug)) if slug else str(Resource(row["resource"]).label)
        if row.get("capacity_type"):
            what = f"{what}, {CapacityType(row['capacity_type']).label.lower()}"
        amount = Decimal(row["amount"])
        classes = [
            (str(ServiceClass(name).label), Decimal(factor), _price(amount, Decimal(factor), proposal.currency))
            for name, factor in row.get("factors", {}).items()
        ]
        found.append(
            Described(what, exact(Money(amount, proposal.currency)), classes, schedules.get(row.get("capex", "")))
        )
    return found


def _price(amount: Decimal, factor: Decimal, currency: str) -> str:
    return exact(Money(publishing.class_price(amount, factor), currency))


def published_since(proposal: RateProposal) -> list[Rate]:
    """Return the prices of the proposal's flavours and resources that were published since it was made."""
    lines = lines_of(proposal)
    keys = {(line.flavour_id, line.resource) for line in lines}
    later = Rate.objects.filter(cluster=proposal.cluster, created_at__gt=proposal.created_at)
    rows = later.select_related("card", "flavour").order_by("flavour_id", "resource", "pk")
    return [rate for rate in rows if (rate.flavour_id, rate.resource) in keys]


@transaction.atomic
def propose_card(
    name: str,
    cluster_id: int,
    lines: Sequence[PriceLine],
    currency: str,
    valid_from: datetime,
    *,
    actor: Actor,
    valid_until: datetime | None = None,
    note: str = "",
) -> RateProposal:
    """Propose prices for a second person to publish, and tell those who may.

    Raises what publishing would: NotAllowed without `rates.card.manage`, NotVisible, Invalid.
    """
    require(actor, MANAGE)
    if actor.user_id is None:
        raise NotAllowed("Prices are proposed by a person.", rule=SECOND_PERSON)
    # The lock puts the proposal and every other card of the cluster in order: which was there when it was made.
    cluster = locked_cluster(cluster_id)
    title = publishing.check_name(name, currency)
    starts, until = publishing.check_times(valid_from, valid_until, imported=False)
    flavours = publishing.flavours_of(cluster)
    publishing.check_lines(cluster, lines, flavours)
    publishing.plan(cluster, lines, starts, until, currency=currency, flavours=flavours)
    proposal = RateProposal(
        name=title,
        cluster=cluster,
        currency=currency,
        valid_from=starts,
        valid_until=until,
        note=note.strip(),
        prices=stored_lines.dump_lines(lines, flavours),
        proposed_by_id=actor.user_id,
    )
    proposal.digest = digest_of(content_of(proposal))
    proposal.save()
    # Read back: the order among cards is by the database's own clock.
    proposal.refresh_from_db(fields=["created_at"])
    second = [pk for pk in scope.holders(APPROVE) if pk != actor.user_id]
    _tell(events.PROPOSAL_SUBMITTED, proposal, actor, second)
    return proposal


@transaction.atomic
def approve_proposal(
    proposal_id: int, *, actor: Actor, expected_digest: str, expected_version: int | None = None
) -> RateProposal:
    """Publish exactly the bytes of `expected_digest`.

    Raises NotAllowed without `rates.card.approve` and for the proposer, Conflict where it was decided, the digest or
    version differs, its start has passed, or another price was published since, Invalid where it no longer fits.
    """
    proposal = _locked(proposal_id, actor, expected_version)
    if expected_digest != proposal.digest or digest_of(content_of(proposal)) != proposal.digest:
        raise Conflict("These are not the prices that you saw. Look at the proposal again.", current=_state(proposal))
    if proposal.valid_from < clock.now().replace(microsecond=0):
        raise Conflict(
            f"Its start, {proposal.valid_from:%Y-%m-%d %H:%M:%S} UTC, has passed: a price never begins in the past."
            " Reject it and propose the prices anew.",
            current=_state(proposal),
        )
    if rates := published_since(proposal):
        said = "; ".join(f"{rate.what}: {rate.exact} by “{rate.card}”" for rate in rates[:10])
        raise Conflict(
            f"Other prices were published since this was proposed ({said}). Propose the prices anew.",
            current={**_state(proposal), "published": said},
        )
    flavours = publishing.flavours_of(proposal.cluster)
    lines = stored_lines.load_lines(proposal.prices, flavours)
    publishing.check_lines(proposal.cluster, lines, flavours)
    changes = publishing.plan(
        proposal.cluster,
        lines,
        proposal.valid_from,
        proposal.valid_until,
        currency=proposal.currency,
        flavours=flavours,
        lock=True,
    )
    proposal.card = publishing.write_card(
        proposal.cluster,
        proposal.name,
        changes,
        proposal.currency,
        proposal.valid_from,
        actor=actor,
        note=proposal.note,
        flavours=flavours,
    )
    _decide(proposal, ProposalStatus.APPROVED, actor, "")
    _tell(events.PROPOSAL_APPROVED, proposal, actor, [proposal.proposed_by_id])
    return proposal


@transaction.atomic
def reject_proposal(
    proposal_id: int, reason: str, *, actor: Actor, expected_version: int | None = None
) -> RateProposal:
    """Reject a proposal with a reason. Raises NotAllowed (the proposer withdraws instead), Conflict, Invalid."""
    proposal = _locked(proposal_id, actor, expected_version)
    said = reason.strip()
    if not said:
        raise Invalid({"reason": "Say why, so that the prices can be corrected."})
    if len(said) > MAX_REASON:
        raise Invalid({"reason": f"At most {MAX_REASON} characters."})
    _decide(proposal, ProposalStatus.REJECTED, actor, said)
    _tell(events.PROPOSAL_REJECTED, proposal, actor, [proposal.proposed_by_id])
    return proposal


@transaction.atomic
def withdraw_proposal(proposal_id: int, *, actor: Actor, expected_version: int | None = None) -> RateProposal:
    """Take back a proposal of one's own. Raises NotAllowed for others' ones, NotVisible, Conflict."""
    proposal = _row(proposal_id)
    require(actor, MANAGE)
    if proposal.proposed_by_id != actor.user_id:
        raise NotAllowed("Only the proposer withdraws a proposal; a second person rejects it.", rule=SECOND_PERSON)
    _open(proposal, expected_version)
    _decide(proposal, ProposalStatus.WITHDRAWN, actor, "")
    second = [pk for pk in scope.holders(APPROVE) if pk != actor.user_id]
    _tell(events.PROPOSAL_WITHDRAWN, proposal, actor, second)
    return proposal


def _row(proposal_id: int) -> RateProposal:
    """Return the proposal, locked after its cluster: the order in which publishing locks."""
    cluster_id = RateProposal.objects.filter(pk=proposal_id).values_list("cluster_id", flat=True).first()
    if cluster_id is None:
        raise NotVisible
    Cluster.objects.select_for_update(no_key=True).get(pk=cluster_id)
    rows = RateProposal.objects.select_for_update(of=("self",)).select_related("cluster", "proposed_by")
    return rows.get(pk=proposal_id)


def _locked(proposal_id: int, actor: Actor, expected_version: int | None) -> RateProposal:
    """Return a proposal that this person may decide on now."""
    proposal = _row(proposal_id)
    require(actor, APPROVE)
    if actor.user_id is None or merging.same_person(actor.user_id, proposal.proposed_by_id):
        raise NotAllowed("Prices take a second person: the proposer does not decide on them.", rule=SECOND_PERSON)
    _open(proposal, expected_version)
    return proposal


def _open(proposal: RateProposal, expected_version: int | None) -> None:
    if proposal.status != ProposalStatus.PROPOSED:
        raise Conflict(
            f"This proposal is decided already: {ProposalStatus(proposal.status).label.lower()}.",
            current=_state(proposal),
        )
    if expected_version is not None and proposal.version != expected_version:
        raise Conflict("The proposal has changed since you read it.", current=_state(proposal))


def _state(proposal: RateProposal) -> dict[str, Any]:
    return {"status": ProposalStatus(proposal.status).label, "digest": proposal.digest, "version": proposal.version}


def _decide(proposal: RateProposal, status: str, actor: Actor, reason: str) -> None:
    proposal.status, proposal.decided_by_id, proposal.decided_at = status, actor.user_id, clock.now()
    proposal.reason = reason
    proposal.bump("status", "decided_by", "decided_at", "reason", "card")


def _tell(event: EventType, proposal: RateProposal, actor: Actor, recipients: Sequence[int]) -> None:
    payload = events.ProposalEvent(
        proposal_uid=proposal.uid,
        cluster_uid=proposal.cluster.uid,
        digest=proposal.digest,
        status=proposal.status,
        valid_from=proposal.valid_from,
        path=reverse("rates:proposal-detail", kwargs={"proposal_uid": proposal.uid}),
        name=proposal.name,
        reason=proposal.reason,
        card_uid=proposal.card.uid if proposal.card else None,
    )
    audit.record(event, payload, actor=actor, subject_type="rates.proposal", subject_uid=proposal.uid)
    outbox.publish(event, payload, recipients=recipients, subject_uid=proposal.uid)
