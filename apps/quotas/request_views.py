"""Pages of quota requests: ask, see at once what it means, follow."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.accounts.models import User
from apps.clusters.choices import KueueMode
from apps.clusters.models import Flavour
from apps.core import clock
from apps.core.errors import Conflict, Invalid
from apps.core.permissions import may
from apps.core.views import CreateView, Crumb, DetailView, ListView, LiveView
from apps.provisioning.views import plan_links
from apps.quotas import actions, live_views, recurrence, selectors, timeline, windows
from apps.quotas.assess import Draft, guaranteed_word
from apps.quotas.choices import RequestStatus
from apps.quotas.forms import RequestForm, may_ask_for, repetition_initial
from apps.quotas.models import Quota, QuotaRequest
from apps.quotas.records import borrow_words, held_words, lend_words
from apps.quotas.tables import REQUESTS_EXPORTED, RequestFilter, RequestTable

#: A change of units in a link, and how much of a reason a link may bring along.
_CHANGE, LINKED_REASON = re.compile(r"[+-]?[0-9]{1,5}"), 500
_NUMBERS = ("guaranteed", "borrow_mode", "borrow_limit", "lend_mode", "lend_limit", "serving")
_RELATED = (
    "workspace__team__unit",
    "workspace__cluster",
    "flavour",
    "requester",
    "approval__policy_version__policy",
    "plan",
    "supersedes",
)


def requests_of_pages() -> Any:
    """Return quota requests with what their pages show beside them."""
    return QuotaRequest.objects.select_related(*_RELATED)


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Quota requests", reverse("quotas:request-list"))


def url_of(request: QuotaRequest) -> str:
    """Return the address of a request's page."""
    return reverse("quotas:request-detail", kwargs={"request_uid": request.uid})


def _next_end(start: datetime, end: datetime | None) -> datetime | None:
    """Return the end that a renewal of a repetition begins with: as long again, as far as one may ask ahead."""
    if end is None:
        return None
    furthest = clock.now().replace(second=0, microsecond=0) + timedelta(days=recurrence.MAX_DAYS_AHEAD)
    return min(end + (end - start), furthest)


def extras_initial(request: QuotaRequest) -> dict[str, Any]:
    """Return what the form shows first of a request's repetition, lending and serving."""
    lending = {"lend_mode": request.lend_mode, "lend_limit": request.lend_limit, "serving": request.serving}
    return {**lending, **repetition_initial(request.recurrence)}


class RequestList(ListView):
    """The quota requests a person may see."""

    title = "Quota requests"
    intro = "Who asked for which GPUs, and where it stands."
    queryset = QuotaRequest.objects.select_related("workspace__team", "workspace__cluster", "flavour", "requester")
    table_class = RequestTable
    filterset_class = RequestFilter
    export_event = REQUESTS_EXPORTED
    empty_title = "No quota requests yet"
    empty_text = "A team lead requests quota for one of the team's workspaces; cost and room show while typing."
    empty_icon = "file-text"

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Requesting, to those who may."""
        if may(self.request.user, "quotas.request.create", None):
            return [("Request quota", reverse("quotas:request-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found else None


class RequestCreate(CreateView):
    """Request quota."""

    title = "Request quota"
    intro = "Nothing changes before it is approved. What it costs and whether it fits shows while you type."
    permission = "quotas.request.create"
    queryset = QuotaRequest.objects.all()
    form_class = RequestForm
    template_name = "quotas/request_form.html"
    submit_label = "Submit the request"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form's choices depend on the person."""
        return {"user": self.request.user}

    def get_initial(self) -> dict[str, Any]:
        """Take workspace and flavour from the link that led here; with one workspace, choose it."""
        mine = {str(uid): pk for uid, pk in may_ask_for(self.request.user).values_list("uid", "pk")}
        chosen = mine.get(self.request.GET.get("workspace", ""))
        if chosen is None and len(mine) == 1:
            chosen = next(iter(mine.values()))
        if (renewed := self._renewed()) is not None:
            return renewed
        initial: dict[str, Any] = {"workspace": chosen}
        slug = self.request.GET.get("flavour", "")
        if slug:
            initial["flavour"] = Flavour.objects.filter(slug=slug).values_list("pk", flat=True).first()
        if reason := self.request.GET.get("reason", ""):
            initial["reason"] = reason[:LINKED_REASON]
        return {**initial, **self._changed(chosen, initial.get("flavour"))}

    def _changed(self, workspace: int | None, flavour: int | None) -> dict[str, Any]:
        """Return what is held now with the change the link named (`change=-3`: three fewer); {} for none."""
        text = self.request.GET.get("change", "")
        if workspace is None or flavour is None or not _CHANGE.fullmatch(text):
            return {}
        held = Quota.objects.in_force().filter(workspace=workspace, flavour=flavour).first()
        if held is None:
            return {"guaranteed": max(0, int(text))}
        return {name: getattr(held, name) for name in _NUMBERS} | {"guaranteed": max(0, held.guaranteed + int(text))}

    def _renewed(self) -> dict[str, Any] | None:
        """Return the form of a renewal where the link named a quota that ends: the same numbers, from its end on."""
        try:
            uid = uuid.UUID(self.request.GET.get("renews", ""))
        except ValueError:
            return None
        quota = Quota.objects.visible_to(self.request.user).select_related("request").filter(uid=uid).first()
        if quota is None or not may_ask_for(self.request.user).filter(pk=quota.workspace_id).exists():
            return None
        source = quota.request
        until: dict[str, Any] = {}
        if source is not None and source.recurrence is not None:
            ends, repeats = source.valid_until, repetition_initial(source.recurrence)
            until = {"valid_until": _next_end(source.valid_from, source.valid_until)}
        else:
            # Windows laid over it cut a quota into pieces; it ends with the last of them.
            pieces = Quota.objects.filter(workspace=quota.workspace_id, flavour=quota.flavour_id, request=source)
            last = pieces.filter(**{name: getattr(quota, name) for name in _NUMBERS}).order_by("-valid").first()
            ends, repeats = (last or quota).valid.upper, {}
        if ends is None or ends <= clock.now():
            return None
        return {
            "workspace": quota.workspace_id,
            "flavour": quota.flavour_id,
            **{name: getattr(quota, name) for name in _NUMBERS},
            "valid_from": ends,
            **repeats,
            **until,
        }

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add where the live estimate comes from."""
        return super().get_context(estimate_url=reverse("quotas:request-estimate"), **extra)

    def conflict(self, conflict: Conflict) -> HttpResponseBase:
        """There is an open request already: sending this again would not help; say where the other one is."""
        uid = conflict.current.get("request")
        if self._form is None or not uid:
            return super().conflict(conflict)
        self._form.add_error("flavour", conflict.message)
        return self.page(status=409, open_url=reverse("quotas:request-detail", kwargs={"request_uid": uid}))

    def perform(self, form: Any) -> str:
        """Submit it."""
        data = form.cleaned_data
        request = actions.request_quota(
            data["workspace"].pk,
            data["flavour"].pk,
            data["guaranteed"],
            data["borrow_mode"],
            data["borrow_limit"],
            data["valid_from"],
            data["valid_until"],
            data["reason"],
            actor=self.actor,
            extras=form.extras(),
        )
        approved = request.status not in (RequestStatus.IN_REVIEW, RequestStatus.WAITING)
        self.success_message = "Approved by policy: it is on its way." if approved else "Submitted. Follow it here."
        return url_of(request)


def _said_wrong(form: Any) -> list[str]:
    """Return what is wrong in what was typed so far; a field that is still empty is not, but a repetition's parts."""
    return [
        f"{form.fields[name].label}: {message}"
        for name, messages in form.errors.items()
        if name in form.fields and name != "reason" and (form[name].value() or name.startswith("repeat_"))
        for message in messages
    ]


class EstimateView(LiveView):
    """What a half-filled request would mean."""

    permission = "quotas.request.create"
    queryset = QuotaRequest.objects.all()
    template_name = "quotas/estimate.html"

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form's choices depend on the person."""
        return {"user": self.request.user}

    def workspace_of(self, data: Mapping[str, Any]) -> Any:
        """Return the workspace that the draft is about."""
        return data.get("workspace")

    def corrects(self) -> Mapping[str, Any] | None:
        """Return the frozen change of the request that the draft would replace."""
        return None

    def in_the_way(self, draft: Draft) -> QuotaRequest | None:
        """Return the open request that stands in the way of a new one."""
        return actions.standing_in_the_way(draft)

    def compute(self, form: Any) -> Mapping[str, Any]:
        """Return estimate, room, budget and approvers, or what is wrong so far."""
        data = form.cleaned_data
        workspace = self.workspace_of(data)
        flavour, guaranteed = data.get("flavour"), data.get("guaranteed")
        wrong = _said_wrong(form)
        if wrong:
            return {"problems": wrong}
        if workspace is None or flavour is None or guaranteed is None or set(form.errors) - {"reason"}:
            return {"incomplete": True}
        try:
            draft = actions.checked_draft(
                workspace.pk,
                flavour.pk,
                guaranteed,
                data.get("borrow_mode", "none"),
                data.get("borrow_limit", 0),
                data.get("valid_from"),
                data.get("valid_until"),
                user=cast("User", self.request.user),
                extras=form.extras(),
                corrects=self.corrects(),
            )
        except Invalid as invalid:
            return {"problems": [text for texts in invalid.errors.values() for text in texts]}
        change = selectors.estimate_change(draft, cast("User", self.request.user))
        before = change.assessment.before
        other = self.in_the_way(draft)
        return {
            "change": change,
            "open_url": url_of(other) if other is not None else "",
            "open_words": actions.in_the_way_words(draft) if other is not None else "",
            "held": held_words(before) if before is not None else "",
            "then": held_words(draft.holding),
            "word": guaranteed_word(draft.pool),
        }


class RequestEstimate(EstimateView):
    """Beside the form of a new request."""

    form_class = RequestForm


class RequestDetail(DetailView):
    """One quota request: what it asks for, what it means, and its way."""

    queryset = staticmethod(requests_of_pages)
    permission = "quotas.request.view"
    url_kwarg = "request_uid"
    template_name = "quotas/request_detail.html"

    def get_title(self) -> str:
        """The request in short."""
        return f"{self.object.guaranteed:,} × {self.object.flavour} for {self.object.workspace}"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add evidence, timeline and what the person may do."""
        request: QuotaRequest = self.object
        user = self.request.user
        later = QuotaRequest.objects.visible_to(user).filter(supersedes=request).first()
        return super().get_context(
            **selectors.request_evidence(request),
            plan_links=plan_links([request.plan] if request.plan is not None else [], user),
            borrow=borrow_words(request.borrow_mode, request.borrow_limit),
            lend=lend_words(request.lend_mode, request.lend_limit),
            kueue=request.workspace.cluster.kueue_mode != KueueMode.OFF,
            repeats=windows.of(request),
            timeline=timeline.of(request),
            later=later,
            # The story card asks again by itself while something is on its way.
            moving=request.status == RequestStatus.APPLYING,
            # And the page loads anew when something else of it changed.
            watch_url=live_views.watched(request),
            may_change=request.is_open and may(user, "quotas.request.withdraw", request),
            approval_url=self._approval_url(),
            **extra,
        )

    def _approval_url(self) -> str:
        """Where the approval is, for those who may see it."""
        approval = self.object.approval
        if approval is None or not type(approval).objects.visible_to(self.request.user).filter(pk=approval.pk).exists():
            return ""
        return reverse("approvals:request-detail", kwargs={"request_uid": approval.uid})
