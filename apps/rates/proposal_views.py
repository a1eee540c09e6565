"""Proposals of rate cards: fill in, look at what changes, propose; a second person approves or rejects."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.http import HttpResponseBase
from django.urls import reverse

from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView
from apps.rates import actions, capex, ports, proposals, publishing, stored_lines
from apps.rates.choices import ProposalStatus
from apps.rates.forms import DecisionForm, ProposeCardForm, RejectForm
from apps.rates.models import CapexSchedule, RateProposal
from apps.rates.tables import ProposalFilter, ProposalTable


def _crumbs() -> list[Crumb]:
    return [Crumb("Rate cards", reverse("rates:card-list")), Crumb("Proposals", reverse("rates:proposal-list"))]


def proposal_url(proposal: RateProposal) -> str:
    """Return the address of a proposal."""
    return reverse("rates:proposal-detail", kwargs={"proposal_uid": proposal.uid})


class ClusterChoice(CreateView):
    """A form for one cluster: the one named in the address, or the first."""

    permission = actions.MANAGE
    cluster: Cluster

    def prepare(self) -> None:
        """Find the cluster. Raises NotVisible for an unknown one."""
        self.clusters = list(Cluster.objects.order_by("name", "pk"))
        slug = self.request.GET.get("cluster", "")
        chosen = [cluster for cluster in self.clusters if cluster.slug == slug] if slug else self.clusters[:1]
        if not chosen:
            raise NotVisible("There is no such cluster." if slug else "There is no cluster to publish prices for yet.")
        self.cluster = chosen[0]

    def scope_object(self) -> Any:
        """Prices are everybody's."""
        return INSTALLATION

    def get_form_kwargs(self) -> dict[str, Any]:
        """Fields for the cluster's flavours."""
        return {"cluster": self.cluster}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the choice of clusters."""
        return super().get_context(clusters=self.clusters, cluster=self.cluster, **extra)


class ProposalCreate(ClusterChoice):
    """Propose a rate card: fill in, look at what ends and begins, confirm."""

    title = "Propose a rate card"
    queryset = RateProposal.objects.all()
    form_class = ProposeCardForm
    template_name = "rates/card_form.html"
    submit_label = "Show what changes"
    intro = (
        "Prices are per hour of one unit: of a flavour, a CPU core, a GiB; egress per GiB. A second person publishes"
        " exactly what you propose. Before that you see which price ends when."
    )
    success_message = "Proposed. A second person publishes it; they got a mail."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return _crumbs()[:1]

    def get_initial(self) -> dict[str, Any]:
        """Start a day from now; with `from`, the prices of an earlier proposal; with `capex`, those of a schedule."""
        initial: dict[str, Any] = {"valid_from": clock.hour_floor(clock.now()) + timedelta(hours=25)}
        if earlier := self._named(RateProposal, "from"):
            initial |= {"name": earlier.name, "note": earlier.note}
            for line in stored_lines.load_lines(earlier.prices, publishing.flavours_of(self.cluster)):
                initial[line.field] = line.amount.normalize()
                initial |= {f"factor_{name}": factor for name, factor in line.factors.items()}
        if schedule := self._named(CapexSchedule, "capex"):
            line = publishing.PriceLine(schedule.flavour_id, "", "", capex.hourly(schedule).price)
            initial |= {
                "name": schedule.name,
                "capex": schedule.uid,
                "capex_flavour": schedule.flavour_id,
                line.field: f"{line.amount.normalize():f}",
            }
        return initial

    def _named(self, model: Any, key: str) -> Any:
        """Return the row named in the address, of this cluster. Raises NotVisible for none."""
        text = self.request.GET.get(key, "")
        if not text:
            return None
        try:
            found = model.objects.visible_to(self.request.user).filter(uid=text, cluster=self.cluster).first()
        except DjangoValidationError as error:
            raise NotVisible from error
        if found is None:
            raise NotVisible
        return found

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Show what would change; propose when exactly that was confirmed."""
        data = form.cleaned_data
        if data.get("confirm") != form.fingerprint:
            starts, until = publishing.check_times(data["valid_from"], data.get("valid_until"), imported=False)
            publishing.check_lines(self.cluster, form.lines, form.flavours)
            preview = publishing.plan(
                self.cluster, form.lines, starts, until, currency=form.currency, flavours=form.flavours
            )
            self.success_message = ""  # nothing is proposed yet
            return self.page(preview=preview, confirm=form.fingerprint, submit_label="Propose these prices")
        proposal = proposals.propose_card(
            data["name"],
            self.cluster.pk,
            form.lines,
            form.currency,
            data["valid_from"],
            valid_until=data.get("valid_until"),
            note=data.get("note", ""),
            actor=self.actor,
        )
        return proposal_url(proposal)


class ProposalList(ListView):
    """All proposals, newest first."""

    title = "Proposed rate cards"
    permission = "rates.card.view"
    intro = "Prices that one person proposed: published, waiting for a second person, rejected or withdrawn."
    queryset = RateProposal.objects.select_related("cluster", "proposed_by", "decided_by")
    table_class = ProposalTable
    filterset_class = ProposalFilter
    empty_title = "No proposals yet"
    empty_text = "Finance proposes prices; a second person publishes them."
    empty_icon = "receipt"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cards."""
        return _crumbs()[:1]

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Offer proposing to those who may."""
        if may(self.request.user, actions.MANAGE, INSTALLATION):
            return [("Propose a rate card", reverse("rates:card-create"))]
        return []


class ProposalDetail(DetailView):
    """One proposal: what ends, what begins, what the last month would have cost, and who decides."""

    permission = "rates.card.view"
    queryset = RateProposal.objects.select_related("cluster", "proposed_by", "decided_by", "card")
    template_name = "rates/proposal_detail.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the proposals."""
        return _crumbs()

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the change as prices stand now, what hinders it, its effect, and what this person may do."""
        proposal, user = self.object, self.request.user
        waiting = proposal.status == ProposalStatus.PROPOSED
        own = proposal.proposed_by_id == user.pk
        changes, hindrance = [], ""
        if waiting:
            try:
                changes = proposals.plan_of(proposal)
            except Invalid as invalid:
                hindrance = invalid.message
        return super().get_context(
            changes=changes,
            hindrance=hindrance,
            lines=proposals.described(proposal),
            waiting=waiting,
            late=waiting and proposal.valid_from < clock.now(),
            since=proposals.published_since(proposal) if waiting else [],
            effects=ports.effects_of(proposal, user),
            own=own,
            may_decide=waiting and not own and may(user, actions.APPROVE, INSTALLATION),
            may_withdraw=waiting and own and may(user, actions.MANAGE, INSTALLATION),
            may_propose=may(user, actions.MANAGE, INSTALLATION),
            again_url=f"{reverse('rates:card-create')}?cluster={proposal.cluster.slug}&from={proposal.uid}",
            **extra,
        )


class _Decision(ActionView):
    """Base of the three decisions."""

    queryset = RateProposal.objects.select_related("cluster", "proposed_by")
    summary_template = "rates/proposal_summary.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the proposal."""
        return [*_crumbs(), Crumb(self.object.name, proposal_url(self.object))]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the prices in words."""
        return super().get_context(lines=proposals.described(self.object), **extra)

    def get_initial(self) -> dict[str, Any]:
        """Carry the digest of what is shown."""
        return {"digest": self.object.digest}

    def check_state(self) -> None:
        """Raise Conflict where it is decided already."""
        if self.object.status != ProposalStatus.PROPOSED:
            raise Conflict("This proposal is decided already.", current={"status": self.object.get_status_display()})


class ProposalApprove(_Decision):
    """Publish exactly what is shown."""

    title = "Approve and publish these prices"
    permission = actions.APPROVE
    form_class = DecisionForm
    submit_label = "Approve and publish"
    intro = "Publishing cannot be undone; a later card can replace these prices."
    success_message = "Published."

    def perform(self, form: Any) -> str:
        """Publish."""
        proposals.approve_proposal(
            self.object.pk,
            actor=self.actor,
            expected_digest=form.cleaned_data["digest"],
            expected_version=self.expected_version,
        )
        return proposal_url(self.object)


class ProposalReject(_Decision):
    """Reject with a reason."""

    title = "Reject these prices"
    permission = actions.APPROVE
    form_class = RejectForm
    submit_label = "Reject"
    danger = True
    success_message = "Rejected. The proposer got a mail with your reason."

    def perform(self, form: Any) -> str:
        """Reject."""
        proposals.reject_proposal(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return proposal_url(self.object)


class ProposalWithdraw(_Decision):
    """Take one's own proposal back."""

    title = "Withdraw these prices"
    permission = actions.MANAGE
    form_class = DecisionForm
    submit_label = "Withdraw"
    danger = True
    intro = "It no longer waits for anybody. Nothing was published."
    success_message = "Withdrawn."

    def perform(self, form: Any) -> str:
        """Withdraw."""
        proposals.withdraw_proposal(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return proposal_url(self.object)
