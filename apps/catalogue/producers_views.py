"""Pages of CI systems that post evidence: list, let in, new token, shut out."""

from __future__ import annotations

from typing import Any

import django_tables2 as tables
from django.http.response import HttpResponseBase
from django.urls import reverse

from apps.catalogue import producers
from apps.catalogue.choices import EvidenceKind
from apps.catalogue.evidence_forms import ProducerForm, ReasonForm, RotateForm
from apps.catalogue.models import Evidence, EvidenceProducer
from apps.core import clock
from apps.core.errors import Conflict
from apps.core.permissions import INSTALLATION, may
from apps.core.tables import CommonsTable, TimeColumn, UidLinkColumn
from apps.core.views import ActionView, CreateView, Crumb, DetailView, ListView

VIEW = "catalogue.producer.view"
_WIDE = {"cell": {"class": "d-none d-md-table-cell"}}


def list_crumb() -> Crumb:
    """Return the way back to the list."""
    return Crumb("Evidence producers", reverse("catalogue:producer-list"))


def url_of(row: EvidenceProducer) -> str:
    """Return a producer's page."""
    return reverse("catalogue:producer-detail", kwargs={"producer_uid": row.uid})


class ProducerTable(CommonsTable):
    """CI systems."""

    name = UidLinkColumn("catalogue:producer-detail", kwarg="producer_uid", verbose_name="Producer")
    token_prefix = tables.Column(verbose_name="Token begins", attrs=_WIDE)
    expires_at = TimeColumn(verbose_name="Token ends")
    last_used_at = TimeColumn(verbose_name="Last delivery", default="never", attrs=_WIDE)
    revoked_at = TimeColumn(verbose_name="Shut out", default="–", attrs=_WIDE)

    class Meta(CommonsTable.Meta):
        model = EvidenceProducer
        fields = ("name", "token_prefix", "expires_at", "last_used_at", "revoked_at")
        order_by = ("name",)
        caption = "Evidence producers"


class ProducerList(ListView):
    """CI systems that post evidence."""

    title = "Evidence producers"
    intro = "CI systems that post evidence: each with a token of its own, each body signed with its Ed25519 key."
    permission = VIEW
    queryset = EvidenceProducer.objects.all()
    table_class = ProducerTable
    exportable = False
    empty_title = "No producers yet"
    empty_text = "Let a pipeline in, so that evaluations and scans arrive signed and by themselves."
    empty_icon = "key"

    def scope_object(self) -> Any:
        """They belong to the installation."""
        return INSTALLATION

    def get_page_actions(self) -> list[tuple[str, str]]:
        """Letting one in."""
        if may(self.request.user, producers.MANAGE, INSTALLATION):
            return [("Let a producer in", reverse("catalogue:producer-create"))]
        return []

    def get_empty_action(self) -> tuple[str, str] | None:
        """The same, in the empty state."""
        found = self.get_page_actions()
        return found[0] if found else None


class ProducerCreate(CreateView):
    """Let a CI system in."""

    title = "Let a producer in"
    intro = "Its token is shown once. It proves each body with its private key, which never comes here."
    permission = producers.MANAGE
    queryset = EvidenceProducer.objects.all()
    form_class = ProducerForm

    def scope_object(self) -> Any:
        """They belong to the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_form_kwargs(self) -> dict[str, Any]:
        """The choices depend on the person."""
        return {"user": self.request.user}

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Add it and show its token, once."""
        data = form.cleaned_data
        made = producers.add_producer(
            data["name"], data["public_key"], data["expires_at"], data["kinds"], [one.pk for one in data["teams"]],
            actor=self.actor, model_ids=[one.pk for one in data["models_allowed"]],
        )  # fmt: skip
        return token_page(self, made)


def token_page(view: Any, made: producers.NewProducer) -> HttpResponseBase:
    """Show a new token, which nothing can show again."""
    view.template_name = "catalogue/producer_token.html"
    response: HttpResponseBase = view.page(producer=made.producer, token=made.token, url=url_of(made.producer))
    return response


class ProducerDetail(DetailView):
    """One CI system."""

    queryset = EvidenceProducer.objects.select_related("created_by")
    permission = VIEW
    url_kwarg = "producer_uid"
    template_name = "catalogue/producer_detail.html"

    def scope_object(self) -> Any:
        """They belong to the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [list_crumb()]

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what it may post and what it posted."""
        row: EvidenceProducer = self.object
        recent = Evidence.objects.visible_to(self.request.user).filter(producer=row).select_related(
            "model_version__model"
        )  # fmt: skip
        open_now = row.revoked_at is None
        return super().get_context(
            kinds=[str(EvidenceKind(kind).label) for kind in row.kinds],
            teams=list(row.teams.order_by("name")),
            models=list(row.models_allowed.order_by("name")),
            recent=list(recent.order_by("-pk")[:20]),
            expired=open_now and clock.now() >= row.expires_at,
            may_manage=open_now and may(self.request.user, producers.MANAGE, INSTALLATION),
            **extra,
        )


class _Manage(ActionView):
    queryset = EvidenceProducer.objects.all()
    permission = producers.MANAGE
    url_kwarg = "producer_uid"

    def scope_object(self) -> Any:
        """They belong to the installation."""
        return INSTALLATION

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the producer."""
        return [list_crumb(), Crumb(self.object.name, url_of(self.object))]

    def check_state(self) -> None:
        """Who is shut out stays out."""
        if self.object.revoked_at is not None:
            raise Conflict("It was shut out: let a new producer in.")


class ProducerRotate(_Manage):
    """Give it a new token."""

    title = "New token"
    intro = "The token it has is void at once."
    form_class = RotateForm
    submit_label = "Make a new token"

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Make and show it, once."""
        data = form.cleaned_data
        made = producers.rotate_token(
            self.object.pk, data["expires_at"], actor=self.actor, public_key=data["public_key"],
            expected_version=self.expected_version,
        )  # fmt: skip
        return token_page(self, made)


class ProducerRevoke(_Manage):
    """Shut it out."""

    title = "Shut the producer out"
    intro = (
        "It delivers nothing more, for ever. What it delivered stays; withdraw that piece by piece where it is wrong."
    )
    form_class = ReasonForm
    submit_label = "Shut it out"
    danger = True
    success_message = "Shut out."

    def perform(self, form: Any) -> str:
        """Revoke it."""
        producers.revoke_producer(
            self.object.pk, form.cleaned_data["reason"], actor=self.actor, expected_version=self.expected_version
        )
        return url_of(self.object)
