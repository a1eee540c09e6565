"""Pages of a month's preview, and of its close, which is confirmed with the preview before one's eyes."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponseBase

from apps.core.errors import Conflict
from apps.core.forms import CommonsForm
from apps.core.lists import PER_PAGE
from apps.core.middleware import after_read
from apps.core.money import Money
from apps.core.permissions import may
from apps.core.sweeps import nudge
from apps.costs import closing, running, running_marks
from apps.costs.choices import UNDER_WAY, OwnerKind, PeriodStatus
from apps.costs.models import RunningMonth, RunningStatement
from apps.costs.period_views import _Everything, _Step, period_url
from apps.metering import billing


class PeriodPreview(_Everything):
    """All statements of a month as a worker last worked them out, with their age and whether they still stand."""

    template_name = "costs/period_preview.html"
    htmx_template = "costs/period_preview.html#list"

    def get_title(self) -> str:
        """Return the title."""
        return f"Preview of {self.object.month:%B %Y}"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show a page of them; where none were made yet, have them made. Raises Conflict where the month is closed."""
        if self.object.status == PeriodStatus.CLOSED:
            raise Conflict("This month is closed: its statements stand.", current={"status": "closed"})
        mark = RunningMonth.objects.select_related("policy").filter(period=self.object).first()
        if mark is None or mark.made_at is None:
            from apps.costs import tasks

            after_read(request, lambda: nudge(tasks.make_running))
        rows = running.in_order(RunningStatement.objects.visible_to(request.user).filter(period=self.object))
        page = self.paged(Paginator(rows, PER_PAGE).page)
        groups = [
            (OwnerKind(kind).label, list(shown))
            for kind, shown in groupby(page.object_list, lambda row: row.owner_kind)
        ]
        made = mark is not None and mark.made_at is not None
        return self.page(
            period=self.object, zone=billing.zone_name(), groups=groups, pages=page, mark=mark, made=made,
            bill=Money(mark.bill, self.object.currency) if mark is not None and mark.bill is not None else None,
            stale=mark is not None and made and mark.marker != running_marks.marker(self.object),
            under_way=mark is None or mark.asked_at is not None or mark.state in UNDER_WAY or not (made or mark.error),
            manages=may(request.user, closing.MANAGE, self.object), preview_url=period_url(self.object, "preview-make"),
        )  # fmt: skip


class PeriodPreviewMake(_Step):
    """Have the preview of a month worked out anew."""

    submit_label = "Work it out anew"
    intro = "A worker reads all charges of the month again and works out every statement. Nothing is frozen."
    success_message = "The preview is being worked out."

    def get_title(self) -> str:
        """Return the title."""
        return f"Preview of {self.object.month:%B %Y} anew"

    def check_state(self) -> None:
        """Raise Conflict where the month is closed."""
        if self.object.status == PeriodStatus.CLOSED:
            raise Conflict("This month is closed: its statements stand.", current={"status": "closed"})

    def perform(self, form: Any) -> str:
        """Ask for it."""
        running.ask(self.object.pk, actor=self.actor)
        return period_url(self.object, "preview")


class CloseForm(CommonsForm):
    """Confirms a close; `preview` is the digest of the preview that stood when the form was drawn."""

    preview = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)


class PeriodClose(_Step):
    """Close a month for good."""

    form_class = CloseForm
    submit_label = "Close the month"
    summary_template = "costs/period_close_preview.html"
    danger = True
    intro = (
        "All statements are frozen, numbered and hashed, and their owners are told. Afterwards nothing in this month"
        " changes: what comes late becomes corrections in an open month."
    )
    success_message = "The month is being frozen."

    def get_title(self) -> str:
        """Return the title."""
        return f"Close {self.object.month:%B %Y}"

    def check_state(self) -> None:
        """Raise Conflict where the month is not closing."""
        if self.object.status != PeriodStatus.CLOSING:
            raise Conflict("Only a month that is closing can be closed.", current={"status": self.object.status})

    def _mark(self) -> RunningMonth | None:
        return RunningMonth.objects.filter(period=self.object).exclude(made_at=None).first()

    def get_initial(self) -> dict[str, Any]:
        """Keep which preview the person has before them."""
        mark = self._mark()
        return {"preview": mark.digest if mark is not None else ""}

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what the preview says, and whether it still stands."""
        mark = self._mark()
        return super().get_context(
            mark=mark, preview_url=period_url(self.object, "preview"),
            bill=Money(mark.bill, self.object.currency) if mark is not None and mark.bill is not None else None,
            stale=mark is not None and mark.marker != running_marks.marker(self.object), **extra,
        )  # fmt: skip

    def perform(self, form: Any) -> str:
        """Confirm."""
        return period_url(
            closing.close(
                self.object.pk, actor=self.actor, expected_version=self.expected_version,
                preview=form.cleaned_data["preview"],
            )
        )  # fmt: skip


__all__ = ["PeriodClose", "PeriodPreview", "PeriodPreviewMake"]
