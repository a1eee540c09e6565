"""Pages about the self-tests of a source: ask for one, read an earlier one, waive failed checks, revoke a waiver."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import django_tables2 as tables
from django.http import HttpResponseBase
from django.urls import reverse

from apps.core import clock
from apps.core.errors import Conflict, NotVisible
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, QuantityColumn, StatusColumn, UidLinkColumn
from apps.core.views import ActionView, Crumb, DetailView, ListView
from apps.metering import fitness, selftest_run, source_changes, waivers
from apps.metering.choices import POLLED
from apps.metering.models import Source, SourceCheck, SourceWaiver
from apps.metering.selftest import NEVER_WAIVED, TITLES
from apps.metering.source_forms import ChangeSourceForm, WaiveForm

VERDICT_TONES = {"passed": "positive", "warned": "caution", "failed": "critical", "unknown": "critical"}
FINDING_TONES = {"ok": "positive", "warning": "caution", "failed": "critical"}
_SHOWN = {"failed": 0, "warning": 1, "ok": 2}


def crumbs(source: Source | None = None) -> list[Crumb]:
    """Return the way back: the list, and the source."""
    found = [Crumb("Sources of usage", reverse("metering:source-list"))]
    return [*found, Crumb(str(source), source_url(source))] if source is not None else found


def source_url(source: Source) -> str:
    """Return the page of a source."""
    return reverse("metering:source-detail", kwargs={"source_uid": source.uid})


def ordered(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return findings as a page shows them: what fails first."""
    return sorted(findings, key=lambda item: _SHOWN.get(str(item.get("status")), 3))


def health_context(source: Source, user: Any) -> dict[str, Any]:
    """Return what the source's page shows of its self-tests and waivers: five queries."""
    health = fitness.health_of([source])[source.pk]
    given = source.waivers.select_related("waived_by", "revoked_by").order_by("-created_at", "-pk")
    return {
        "health": health,
        "health_word": fitness.WORDS[health.word],
        "health_tone": fitness.TONES[health.word],
        "unfit_titles": [TITLES.get(code, code) for code in health.unfit],
        "waived_codes": health.waived,
        "findings": ordered(health.check.findings) if health.check else [],
        "finding_tones": FINDING_TONES,
        "moving": selftest_run.moving(source, health.check),
        "checks": list(SourceCheck.objects.filter(source=source).defer("findings").order_by("-checked_at", "-pk")[:10]),
        "waiver_rows": [
            (waiver, [TITLES.get(code, code) for code in waiver.codes], waivers.standing(waiver))
            for waiver in given[:20]
        ],
        "may_test": may(user, "metering.run.retry", INSTALLATION),
        "may_waive": may(user, waivers.WAIVE, INSTALLATION),
        "waivable": any(code not in NEVER_WAIVED for code in health.unfit),
    }


class SourceTest(ActionView):
    """Test a source now."""

    title = "Test this source"
    permission = "metering.run.retry"
    queryset = Source.objects.select_related("cluster")
    submit_label = "Test now"
    intro = "The portal asks the source about two dozen small questions: what it can tell, and what is missing."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return crumbs(self.object)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Queue the test and show its progress."""
        selftest_run.request_check(self.object.pk, actor=self.actor)
        return f"{source_url(self.object)}#self-test"


class SourceChange(ActionView):
    """Change a source in place."""

    title = "Change this source"
    permission = source_changes.CHANGE
    queryset = Source.objects.select_related("cluster")
    form_class = ChangeSourceForm
    submit_label = "Save and test"
    intro = (
        "What is changed holds for whatever is read from now on; hours read so far stand until they are read again."
        " The source is tested at once. Another address, and options that change what is asked, end the waivers of its"
        " failed checks, and its verdict is unknown until that test: whoever may waive decides anew on what then fails."
    )
    success_message = "The source is changed, and is tested now; its waivers stand only if the same is asked as before."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return crumbs(self.object)

    def check_state(self) -> None:
        """Refuse imported usage, which is not asked for over the network."""
        if self.object.kind not in POLLED:
            raise Conflict("Imported usage is not asked for over the network: there is nothing to change here.")

    def get_form_kwargs(self) -> dict[str, Any]:
        """The fields depend on the kind."""
        return {"source": self.object}

    def get_initial(self) -> dict[str, Any]:
        """Show how it stands."""
        return ChangeSourceForm.initial_of(self.object)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Change it."""
        data = form.cleaned_data
        source_changes.change_source(
            self.object.pk,
            data["name"],
            data["url"],
            data["token"],
            actor=self.actor,
            forget_token=data.get("forget_token", False),
            options=form.options(),
            expected_version=self.expected_version,
        )
        return f"{source_url(self.object)}#self-test"


class CheckTable(CommonsTable):
    """Self-tests of one source."""

    checked_at = UidLinkColumn("metering:source-check", kwarg="check_uid", verbose_name="Tested")
    verdict = StatusColumn(tones=VERDICT_TONES, verbose_name="Outcome")
    started_by = tables.Column(verbose_name="Asked for by", default="schedule", orderable=False)
    requests = QuantityColumn(unit=None, verbose_name="Questions")

    class Meta(CommonsTable.Meta):
        model = SourceCheck
        fields = ("checked_at", "verdict", "started_by", "requests")
        order_by = ("-checked_at",)
        caption = "Self-tests of this source"

    def render_checked_at(self, value: Any, record: SourceCheck, column: UidLinkColumn) -> Any:
        """Write the moment as a link."""
        return column.render(f"{value:%Y-%m-%d %H:%M:%S} UTC", record)


class CheckList(ListView):
    """Every kept self-test of a source."""

    title = "Self-tests"
    permission = "metering.run.view"
    queryset = SourceCheck.objects.select_related("started_by").defer("findings")
    table_class = CheckTable
    intro = "What the source could tell, each time it was asked."
    empty_title = "Not tested yet"
    empty_text = "A self-test starts within a minute of the source's registration."
    empty_icon = "history"
    source: Source

    def prepare(self) -> None:
        """Load the source. Raises NotVisible."""
        found = Source.objects.visible_to(self.request.user).filter(uid=self.kwargs["source_uid"]).first()
        if found is None:
            raise NotVisible
        self.source = found

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return crumbs(self.source)

    def get_queryset(self) -> Any:
        """Return this source's tests."""
        return super().get_queryset().filter(source=self.source)


class CheckDetail(DetailView):
    """One earlier self-test."""

    title = "Self-test"
    permission = "metering.run.view"
    queryset = SourceCheck.objects.select_related("source__cluster", "started_by")
    template_name = "metering/source_check.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return crumbs(self.object.source)

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add its findings."""
        return super().get_context(
            findings=ordered(self.object.findings),
            finding_tones=FINDING_TONES,
            verdict_tone=VERDICT_TONES[self.object.verdict],
            waived_codes=(),
            **extra,
        )


class SourceWaive(ActionView):
    """Waive failed checks."""

    title = "Waive failed checks"
    permission = waivers.WAIVE
    queryset = Source.objects.select_related("cluster")
    form_class = WaiveForm
    submit_label = "Waive"
    intro = (
        "You say by name that this source may be billed from although these checks fail. Months can be closed on it"
        " until the waiver ends. The others who may waive are told."
    )
    success_message = "The checks are waived; others who answer for the bill are told."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return crumbs(self.object)

    def check_state(self) -> None:
        """Refuse where nothing fails that can be waived."""
        if not waivers.waivable(self.object):
            raise Conflict("No failed check of this source can be waived.")

    def get_form_kwargs(self) -> dict[str, Any]:
        """Offer the checks that fail."""
        return {"failing": waivers.waivable(self.object)}

    def get_initial(self) -> dict[str, Any]:
        """Propose 30 days."""
        return {"until": clock.hour_floor(clock.now()) + timedelta(days=30)}

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Waive them."""
        data = form.cleaned_data
        waivers.waive(
            self.object.pk,
            data["codes"],
            data["reason"],
            data["until"],
            actor=self.actor,
            expected_version=self.expected_version,
        )
        return f"{source_url(self.object)}#waivers"


class WaiverRevoke(ActionView):
    """Revoke a waiver."""

    title = "Revoke this waiver"
    permission = waivers.WAIVE
    queryset = SourceWaiver.objects.select_related("source__cluster", "waived_by")
    submit_label = "Revoke"
    danger = True
    intro = "Its checks count as failed again from now on: no month is closed on the source until they are repaired."
    success_message = "The waiver is revoked; others who answer for the bill are told."

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the source."""
        return crumbs(self.object.source)

    def check_state(self) -> None:
        """Refuse one that is over."""
        if not waivers.standing(self.object):
            raise Conflict("This waiver is over already.")

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Revoke it."""
        waivers.revoke(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return f"{source_url(self.object.source)}#waivers"
