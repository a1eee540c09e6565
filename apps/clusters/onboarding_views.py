"""Pages around bringing a cluster in: what the portal needs there, checks, how it is used, and maintenance."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from django.http import Http404, HttpResponse, HttpResponseBase
from django.urls import reverse

from apps.clusters import actions, capabilities, rbac
from apps.clusters.administering import kueue_mode_refusal, kueue_objection
from apps.clusters.choices import KueueMode
from apps.clusters.forms import EditClusterForm, KueueForm, MaintenanceForm, NeedsForm
from apps.clusters.models import MaintenanceWindow
from apps.clusters.views import VIEW, ClusterAction, cluster_url, clusters_crumb
from apps.core import clock
from apps.core.errors import Conflict
from apps.core.views import ActionView, Crumb, PageView


class ClusterNeeds(PageView):
    """What the portal needs on a cluster, as YAML to look at and to take away."""

    title = "What the portal needs on a cluster"
    permission = VIEW
    scope_free = "reads no rows: it generates roles from a table in the code"
    template_name = "clusters/cluster_needs.html"

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the list."""
        return [clusters_crumb()]

    def get(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Show the page, or hand out the file."""
        given = request.GET if "chosen" in request.GET else None
        form = NeedsForm(given)
        options = rbac.Options()
        if given is not None:
            if not form.is_valid():
                return self.page(status=400, form=form, text="", commands=[], parts=[])
            names = {field.name for field in fields(rbac.Options)}
            options = rbac.Options(**{key: value for key, value in form.cleaned_data.items() if key in names})
        text, settings = rbac.to_yaml(rbac.manifests(options)), rbac.settings_files(options)
        if wanted := request.GET.get("download"):
            files = {"1": ("gpu-commons-access.yaml", text)} | {
                file.namespace: (file.name, file.text) for file in settings
            }
            if wanted not in files:
                raise Http404(f"No file of the chosen parts is for {wanted}.")
            name, body = files[wanted]
            disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
            return HttpResponse(body, content_type="application/yaml", headers=disposition)
        query = request.GET.copy()
        query.pop("download", None)
        chosen = options.parts()
        parts = [
            (part, part.key in chosen, [need for need in rbac.NEEDS if need.part == part.key]) for part in rbac.PARTS
        ]
        return self.page(
            form=form, text=text, commands=rbac.commands(options), parts=parts, username=options.username,
            settings=settings, download=f"?{query.urlencode()}&download=",
        )  # fmt: skip


class ClusterCheckRequest(ClusterAction):
    """Check a cluster again."""

    title = "Check again"
    submit_label = "Check the cluster"
    intro = "The portal goes through every step once more: address, certificate, token, version, rights, what is there."

    def check_state(self) -> None:
        """Refuse a paused one."""
        if self.object.paused_at is not None:
            raise Conflict("This cluster is paused: resume it first.", current={"reason": self.object.pause_reason})

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Queue the check and show its progress."""
        actions.request_check(self.object.pk, actor=self.actor)
        return f"{cluster_url(self.object)}#cluster-check"


class ClusterEdit(ClusterAction):
    """Change name, region, place, group prefix and identity provider."""

    title = "Edit"
    form_class = EditClusterForm
    submit_label = "Save"
    success_message = "The cluster is changed."

    def get_initial(self) -> dict[str, Any]:
        """How it is."""
        cluster, provider = self.object, self.object.identity_provider or {}
        return {
            "name": cluster.name,
            "region": cluster.region,
            "location": cluster.location,
            "jurisdiction": cluster.jurisdiction,
            "group_prefix": cluster.group_prefix,
            "identity": provider.get("type", ""),
            "issuer_url": provider.get("issuer_url", ""),
            "client_id": provider.get("client_id", ""),
            "command": provider.get("command", ""),
            "args": "\n".join(provider.get("args") or []),
            "hint": provider.get("hint", ""),
        }

    def get_form(self, data: Any = None, files: Any = None) -> Any:
        """Let what only configuration can say stand as it is."""
        form = super().get_form(data, files)
        if (self.object.identity_provider or {}).get("type") == "tokens_file":
            form.fields["identity"].choices = [
                ("keep", "A file of tokens (simulated cluster)"), *form.fields["identity"].choices,
            ]  # fmt: skip
            form.initial["identity"] = "keep"
        return form

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Change it."""
        data, provider = form.cleaned_data, form.provider()
        if provider is not None and provider.get("type") == "exec":
            # What the form does not show (environment variables of the program) stays.
            kept = (self.object.identity_provider or {}).get("env")
            provider = {**provider, "env": kept} if kept else provider
        actions.update_cluster(
            self.object.pk, name=data["name"], region=data["region"], location=data["location"],
            jurisdiction=data["jurisdiction"], group_prefix=data["group_prefix"],
            identity_provider=provider, actor=self.actor, expected_version=self.expected_version,
        )  # fmt: skip
        return cluster_url(self.object)


class ClusterKueue(ClusterAction):
    """Choose how Kueue is used on a cluster."""

    title = "How Kueue is used"
    form_class = KueueForm
    submit_label = "Save"
    summary_template = "clusters/cluster_kueue_summary.html"
    intro = (
        "With Kueue what is lent to other teams is taken back when its owner wants it, so quotas can be borrowed and"
        " still be guaranteed. Without it a quota is a fixed limit."
    )
    success_message = "How Kueue is used is changed."

    def get_initial(self) -> dict[str, Any]:
        """What is in force; the labels that the check found where none were chosen."""
        cluster = self.object
        labels = cluster.kueue_namespace_labels or capabilities.of(cluster).kueue.managed_labels or {}
        return {
            "mode": cluster.kueue_mode,
            "namespace_labels": "\n".join(f"{key}={value}" for key, value in sorted(labels.items())),
        }

    def get_context(self, **extra: Any) -> dict[str, Any]:
        """Add what stands against each mode."""
        cluster = self.object
        whys = {label: kueue_mode_refusal(cluster, mode) for mode, label in KueueMode.choices if mode != KueueMode.OFF}
        modes = [(f"Not possible: {label}", why) for label, why in whys.items() if why]
        if why := kueue_objection(cluster, KueueMode.OFF):
            modes.append(("Not to be switched off now", why))
        if len(modes) == len(whys) and len(set(whys.values())) == 1:
            modes = [("Kueue cannot be used here", modes[0][1])]
        return super().get_context(modes=modes, found=capabilities.of(cluster), **extra)

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Set it."""
        data = form.cleaned_data
        actions.set_kueue_mode(
            self.object.pk, data["mode"], namespace_labels=data["namespace_labels"], actor=self.actor,
            expected_version=self.expected_version,
        )  # fmt: skip
        return cluster_url(self.object)


class MaintenanceCreate(ClusterAction):
    """Plan a maintenance window."""

    title = "Plan maintenance"
    form_class = MaintenanceForm
    submit_label = "Plan it"
    intro = (
        "Nothing is applied to the cluster in this time; what is approved waits and is applied afterwards. The portal"
        " goes on looking at the cluster, and work that runs there is not touched. Times in UTC."
    )
    success_message = "The maintenance is planned."

    def get_initial(self) -> dict[str, Any]:
        """From now on."""
        return {"start": clock.now().replace(second=0, microsecond=0)}

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Plan it."""
        data = form.cleaned_data
        actions.schedule_maintenance(self.object.pk, data["start"], data["end"], data["reason"], actor=self.actor)
        return f"{cluster_url(self.object)}#maintenance"


class MaintenanceCancel(ActionView):
    """Take a maintenance window back."""

    title = "Cancel maintenance"
    queryset = MaintenanceWindow.objects.select_related("cluster")
    permission = actions.MANAGE
    submit_label = "Cancel the maintenance"
    danger = True
    intro = "What waits for the cluster is applied at once, unless it is paused."
    success_message = "The maintenance is cancelled."

    def scope_object(self) -> Any:
        """Ask the permission for the cluster."""
        return self.object.cluster

    def breadcrumbs(self) -> list[Crumb]:
        """Back to the cluster."""
        cluster = self.object.cluster
        return [clusters_crumb(), Crumb(str(cluster), cluster_url(cluster))]

    def check_state(self) -> None:
        """Refuse one that is over or cancelled."""
        if self.object.cancelled_at is not None or self.object.valid.upper <= clock.now():
            raise Conflict("This window is over or cancelled.")

    def perform(self, form: Any) -> str | HttpResponseBase:
        """Cancel it."""
        actions.cancel_maintenance(self.object.pk, actor=self.actor, expected_version=self.expected_version)
        return f"{reverse('clusters:cluster-detail', kwargs={'slug': self.object.cluster.slug})}#maintenance"
