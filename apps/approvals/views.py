"""Pages of approval requests. Nothing is decided by GET."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponseBase
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from apps.accounts import sign_in
from apps.accounts.addresses import client_address
from apps.accounts.second_step import Proof
from apps.accounts.step_up import confirm_url
from apps.approvals import actions, commenting, presentation, proving, selectors
from apps.approvals.choices import REQUEST_TRANSITIONS, RequestStatus
from apps.approvals.events import REQUESTS_EXPORTED
from apps.approvals.filters import RequestFilter
from apps.approvals.forms import CommentForm, DecisionForm, ReasonForm
from apps.approvals.models import ApprovalRequest, Grant
from apps.approvals.querysets import OPEN_STATUSES
from apps.approvals.tables import RequestTable
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.permissions import may
from apps.core.views import ActionView, Crumb, DetailView, ListView, ObjectMixin
from portal.panels import panels_for

_REQUESTS = ("team", "unit", "requester", "policy_version__policy", "supersedes")


def _requests() -> Any:
    return ApprovalRequest.objects.select_related(*_REQUESTS)


class RequestList(ListView):
    """All requests that the person may see."""

    title = "Approvals"
    intro = "What was asked, where it stands, and who decided."
    queryset = staticmethod(_requests)
    table_class = RequestTable
    filterset_class = RequestFilter
    export_event = REQUESTS_EXPORTED
    empty_title = "No approval requests yet"
    empty_text = (
        "A request appears here when somebody asks for something that a policy wants decided, quota for example."
    )
    empty_icon = "clipboard-check"


class _RequestPage(ObjectMixin):
    """A page about one request."""

    queryset = staticmethod(_requests)
    url_kwarg = "request_uid"
    _seen: selectors.Sight | None = None

    def prepare(self) -> None:
        """Load the request, and how it stands now."""
        super().prepare()
        self._seen = None

    @property
    def seen(self) -> selectors.Sight:
        """The request as it stands at this moment."""
        if self._seen is None:
            self._seen = selectors.sight(self.object)
        return self._seen

    def get_title(self) -> str:
        """Return the request's title."""
        return str(self.object)

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the list."""
        return [Crumb("Approvals", reverse("approvals:request-list"))]

    def here(self) -> str:
        """Return the path of the request's page."""
        return reverse("approvals:request-detail", kwargs={"request_uid": self.object.uid})


class RequestDetail(_RequestPage, DetailView):
    """One request: the exact change, who decides, what was decided."""

    template_name = "approvals/request_detail.html"

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the request's whole story, and what this person may do."""
        user, request = self.request.user, self.object
        voices = selectors.voices(self.seen, user) if self.seen.open_stage is not None else []
        later = ApprovalRequest.objects.visible_to(user).filter(supersedes=request).first()
        in_review = request.status == RequestStatus.IN_REVIEW
        rule = selectors.why_not(self.seen, user) if in_review and not voices else ""
        held = Grant.objects.visible_to(user).filter(request=request).first()
        open_now = REQUEST_TRANSITIONS.can(request.status, "withdraw")
        return super().get_context(
            **presentation.request_context(self.seen),
            can_decide=bool(voices),
            from_inbox=self.request.GET.get("from") == "inbox",
            remarks=commenting.remarks(request, user),
            comment_form=self.comment_form(),
            later=later,
            grant=held,
            grant_panels=panels_for("grant", self.request, held) if held is not None else [],
            why_not=rule if may(user, "approvals.request.decide", request) else "",
            can_withdraw=open_now and actions.may_withdraw(user, request),
            can_retry=request.status == RequestStatus.WAITING and may(user, "approvals.request.decide", request),
            **extra,
        )

    def comment_form(self) -> CommentForm | None:
        """Return the form for a comment; None once the request has ended, or for who only reads."""
        request = self.object
        if request.status not in OPEN_STATUSES or not commenting.may_comment(self.request.user, request):
            return None
        # The page's other forms have fields of the same names.
        return CommentForm(anchors=commenting.anchors(request), auto_id="comment_%s")


class _RequestAction(_RequestPage, ActionView):
    """An action on one request."""

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the request."""
        return [*super().breadcrumbs(), Crumb(str(self.object), self.here())]


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
class RequestDecide(_RequestAction):
    """Approve or reject, with the exact change above the form."""

    form_class = DecisionForm
    template_name = "approvals/request_decide.html"
    submit_label = "Decide"
    intro = "Read the exact change. Your decision counts for these bytes only and is kept for good."

    def get_title(self) -> str:
        """Name the request."""
        return f"Decide: {self.object}"

    def check_permission(self) -> None:
        """Ask for the permission, and for the rule that may keep this person from deciding."""
        super().check_permission()
        user = self.request.user
        if self.seen.open_stage is None and not may(user, "approvals.request.decide", self.object):
            raise NotAllowed(rule="approvals.request.decide")
        # Not the permission but the seat counts: it may be somebody's who lets this person speak for them.
        selectors.refuse_unless_may_decide(self.seen, user)

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the seats; ask for the password where the policy wants it and the last proof is too old."""
        asks_here = self.must_prove() and not proving.has_page(self.request)
        return {
            "seats": presentation.seat_choices(self.seen, self.request.user),
            "password_minutes": proving.minutes_of(self.object) if asks_here else None,
        }

    def must_prove(self) -> bool:
        """Whether the policy wants a proof of who this is that is not as old as the last one."""
        return proving.stale(proving.auth_of(self.request), proving.minutes_of(self.object))

    def check_state(self) -> None:
        """Refuse what is decided, withdrawn or lapsed."""
        if self.seen.lapsed:
            raise Conflict("The time to decide is over: this request has lapsed.", current={"status": "lapsed"})
        if self.object.status == RequestStatus.WAITING:
            raise Conflict("The decisions are complete.", current=actions.current(self.object))
        REQUEST_TRANSITIONS.next(self.object.status, "reject")

    def get_initial(self) -> dict[str, Any]:
        """Carry the digest of what is shown."""
        return {"digest": self.object.subject_digest, "verdict": self.request.GET.get("verdict", "")}

    def perform(self, form: Any) -> str:
        """Decide."""
        data = form.cleaned_data
        user: Any = self.request.user
        if "password" in data:
            session: Any = self.request.sign_in_session  # type: ignore[attr-defined]  # set by the middleware
            sign_in.confirm_password(
                session,
                data["password"],
                address=client_address(self.request),
                proof=Proof(),
                store=self.request.session,
            )
        elif self.must_prove():
            raise Invalid({"": "Prove once more who you are, by the link above; then send this again."})
        giver, stage = presentation.seat_of(data["seat"], self.seen, user)
        actions.decide(
            self.object.pk,
            data["verdict"],
            data["reason"],
            actor=self.actor,
            expected_digest=data["digest"],
            expected_version=self.expected_version,
            on_behalf_of=giver,
            stage=stage,
            auth=proving.auth_of(self.request),
        )
        return reverse("approvals:inbox") if self.request.GET.get("from") == "inbox" else self.here()

    success_message = "Your decision is recorded."

    def conflict(self, conflict: Conflict) -> HttpResponseBase:
        """Show how the request stands now; what was typed stays, bound to the present digest once it is read again."""
        self.prepare()
        if self._form is not None:
            data = self._form.data.copy()
            data[self._form.add_prefix("digest")] = self.object.subject_digest
            # Read anew before deciding anew.
            data.pop(self._form.add_prefix("confirmed"), None)
            self._form.data = data
        blocked = self.object.status != RequestStatus.IN_REVIEW or self.seen.lapsed
        response = super().conflict(conflict)
        if blocked:
            return self.page(status=409, conflict=conflict, blocked=True)
        return response

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add the request's story above the form, and where to prove who one is; the form stays open beside it."""
        prove_url = confirm_url(self.here()) if self.must_prove() and proving.has_page(self.request) else ""
        context = {**presentation.request_context(self.seen), "prove_url": prove_url, **extra}
        return super().get_context(**context)


class RequestWithdraw(_RequestAction):
    """Take a request back."""

    form_class = ReasonForm
    submit_label = "Withdraw"
    danger = True
    intro = "Nothing will be granted, and decisions made so far are void. It can be submitted again."
    success_message = "The request is withdrawn."

    def get_title(self) -> str:
        """Name the request."""
        return f"Withdraw: {self.object}"

    def check_permission(self) -> None:
        """Let the requester, and who may withdraw for the team."""
        if not actions.may_withdraw(self.request.user, self.object):
            raise NotAllowed(actions.WITHDRAW_RULE, rule="requester or lead")

    def check_state(self) -> None:
        """Refuse what has ended."""
        REQUEST_TRANSITIONS.next(self.object.status, "withdraw")

    def perform(self, form: Any) -> str:
        """Withdraw."""
        reason = form.cleaned_data["reason"]
        actions.withdraw(self.object.pk, reason, actor=self.actor, expected_version=self.expected_version)
        return self.here()


class RequestRetry(_RequestAction):
    """Try again to grant a request that waits for capacity."""

    permission = "approvals.request.decide"
    submit_label = "Try again"
    intro = "It is tried every minute by itself, in order of submission. This tries it now."

    def get_title(self) -> str:
        """Name the request."""
        return f"Try again: {self.object}"

    def check_state(self) -> None:
        """Refuse what does not wait."""
        if self.object.status != RequestStatus.WAITING:
            raise Conflict("This request does not wait for capacity.", current=actions.current(self.object))

    def perform(self, form: Any) -> str:
        """Try."""
        self.object = actions.retry_waiting(self.object.pk, actor=self.actor)
        return self.here()

    def get_success_message(self) -> str:
        """Say how it went."""
        return (
            "Granted." if self.object.status == RequestStatus.APPROVED else f"Still waiting: {self.object.conclusion}"
        )
