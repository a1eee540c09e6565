"""Commenting on a request, and resolving a comment."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from apps.approvals import commenting
from apps.approvals.forms import CommentForm
from apps.approvals.models import ApprovalRequest, Comment
from apps.approvals.querysets import OPEN_STATUSES
from apps.core.errors import Conflict, NotAllowed
from apps.core.views import ActionView, Crumb


def _page_of(request: ApprovalRequest) -> str:
    return reverse("approvals:request-detail", kwargs={"request_uid": request.uid})


class CommentCreate(ActionView):
    """A comment on one request."""

    queryset = ApprovalRequest.objects.select_related("team", "unit", "requester", "policy_version__policy")
    url_kwarg = "request_uid"
    form_class = CommentForm
    submit_label = "Comment"
    intro = "A comment keeps the bytes it was made on. Everybody who sees the request reads it; it decides nothing."
    success_message = "Your comment is on the request."

    def get_title(self) -> str:
        """Name the request."""
        return f"Comment: {self.object}"

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the request."""
        return [Crumb("Approvals", reverse("approvals:request-list")), Crumb(str(self.object), _page_of(self.object))]

    def check_permission(self) -> None:
        """Let who may decide it, and the requester's side."""
        if not commenting.may_comment(self.request.user, self.object):
            raise NotAllowed(commenting.COMMENT_RULE, rule="comment")

    def check_state(self) -> None:
        """Refuse what has ended."""
        if self.object.status not in OPEN_STATUSES:
            raise Conflict(
                "This request has ended: comments belong to open ones.", current={"status": self.object.status}
            )

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer what can be commented on."""
        return {"anchors": commenting.anchors(self.object)}

    def get_initial(self) -> dict[str, Any]:
        """Take the anchor from a link."""
        return {"anchor": self.request.GET.get("anchor", "")}

    def perform(self, form: Any) -> str:
        """Comment."""
        data = form.cleaned_data
        commenting.comment(self.object.uid, data["anchor"], data["body"], actor=self.actor)
        return f"{_page_of(self.object)}#comments"


class CommentResolve(ActionView):
    """Marks a comment as dealt with."""

    queryset = Comment.objects.select_related("request__team", "request__unit", "author")
    url_kwarg = "comment_uid"
    title = "Resolve comment"
    submit_label = "Resolve"
    success_message = "The comment is resolved."

    def breadcrumbs(self) -> list[Crumb]:
        """Lead back to the request."""
        request = self.object.request
        return [Crumb("Approvals", reverse("approvals:request-list")), Crumb(str(request), _page_of(request))]

    def check_permission(self) -> None:
        """Let its author, and who may decide the request."""
        if not commenting.may_resolve(self.request.user, self.object):
            raise NotAllowed(commenting.RESOLVE_RULE, rule="resolve")

    def check_state(self) -> None:
        """A resolved comment stays resolved."""
        if self.object.resolved_at is not None:
            raise Conflict("This comment is resolved already.", current={"version": self.object.version})

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Show whose words these are."""
        intro = f"{self.object.author} wrote: {self.object.body}"
        return super().get_context(**{"intro": intro, **extra})

    def perform(self, form: Any) -> str:
        """Resolve."""
        row = commenting.resolve(self.object.uid, actor=self.actor, expected_version=self.expected_version)
        return f"{_page_of(row.request)}#comments"
