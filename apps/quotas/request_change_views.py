"""Pages that change an open quota request: withdraw it, correct it, see at once what the correction means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.urls import reverse

from apps.core.errors import Conflict
from apps.core.views import ActionView, Crumb
from apps.quotas import actions
from apps.quotas.assess import Draft
from apps.quotas.choices import RequestStatus
from apps.quotas.forms import CorrectionForm, WithdrawForm
from apps.quotas.models import QuotaRequest
from apps.quotas.request_views import EstimateView, extras_initial, list_crumb, requests_of_pages, url_of


class _RequestAction(ActionView):
    """Something that is done with an open request."""

    queryset = staticmethod(requests_of_pages)
    permission = "quotas.request.withdraw"
    url_kwarg = "request_uid"
    object: QuotaRequest

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the request."""
        return [list_crumb(), Crumb(f"{self.object.guaranteed:,} × {self.object.flavour}", url_of(self.object))]

    def check_state(self) -> None:
        """Only an open request can be changed."""
        if not self.object.is_open:
            label = RequestStatus(self.object.status).label.lower()
            raise Conflict(
                f"This request is {label}: it can no longer be changed.",
                current={"status": self.object.status, "version": self.object.version},
            )


class RequestWithdraw(_RequestAction):
    """Take a request back."""

    title = "Withdraw the request"
    intro = "Nothing that is in force changes. What was decided so far is void."
    form_class = WithdrawForm
    submit_label = "Withdraw it"
    danger = True
    success_message = "Withdrawn."

    def perform(self, form: Any) -> str:
        """Withdraw it."""
        request = actions.withdraw_request(
            self.object.pk,
            actor=self.actor,
            expected_version=self.expected_version,
            reason=form.cleaned_data.get("reason", ""),
        )
        return url_of(request)


class RequestCorrect(_RequestAction):
    """Replace a request by a corrected one."""

    title = "Correct the request"
    intro = "A corrected request starts its approval anew: decisions made so far count no more."
    form_class = CorrectionForm
    template_name = "quotas/request_form.html"
    submit_label = "Submit the correction"
    success_message = "Corrected. Earlier decisions are void."

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form is about the request's workspace."""
        return {"user": self.request.user, "workspace": self.object.workspace}

    def get_initial(self) -> dict[str, Any]:
        """Start from the request as it stands."""
        request = self.object
        return {
            "flavour": request.flavour_id,
            "guaranteed": request.guaranteed,
            "borrow_mode": request.borrow_mode,
            "borrow_limit": request.borrow_limit,
            "valid_from": request.valid_from if request.valid_from > request.created_at else None,
            "valid_until": request.valid_until,
            "reason": request.reason,
            **extras_initial(request),
        }

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add where the live estimate comes from."""
        url = reverse("quotas:request-correct-estimate", kwargs={"request_uid": self.object.uid})
        return super().get_context(estimate_url=url, **extra)

    def perform(self, form: Any) -> str:
        """Submit the correction."""
        data = form.cleaned_data
        request = actions.correct_request(
            self.object.pk,
            data["flavour"].pk,
            data["guaranteed"],
            data["borrow_mode"],
            data["borrow_limit"],
            data["valid_from"],
            data["valid_until"],
            data["reason"],
            actor=self.actor,
            expected_version=self.expected_version,
            extras=form.extras(),
        )
        return url_of(request)


class CorrectEstimate(EstimateView):
    """Beside the form of a correction."""

    permission = "quotas.request.withdraw"
    form_class = CorrectionForm
    object: QuotaRequest

    def prepare(self) -> None:
        """Load the request. Raises NotVisible."""
        rows = QuotaRequest.objects.select_related("workspace__cluster", "workspace__team")
        self.object = rows.get_visible(self.request.user, self.kwargs["request_uid"])

    def scope_object(self) -> Any:
        """Ask permissions for the request."""
        return self.object

    def get_form_kwargs(self) -> dict[str, Any]:
        """The form is about the request's workspace."""
        return {"user": self.request.user, "workspace": self.object.workspace}

    def workspace_of(self, data: Mapping[str, Any]) -> Any:
        """The request's."""
        return self.object.workspace

    def in_the_way(self, draft: Draft) -> QuotaRequest | None:
        """Another one than that which is corrected."""
        other = super().in_the_way(draft)
        return other if other is not None and other.pk != self.object.pk else None

    def corrects(self) -> Mapping[str, Any] | None:
        """The request's: a renewal keeps its place."""
        return dict(self.object.change)
