"""What a platform admin decides about a cluster: how Kueue is used there, its name, who people sign in with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction

from apps import audit
from apps.clusters import capabilities, events, places, regions
from apps.clusters.access import require
from apps.clusters.choices import KueueMode, Location
from apps.clusters.models import Cluster
from apps.core.actor import Actor
from apps.core.errors import Invalid
from apps.core.events import EventType

MANAGE = "clusters.cluster.manage"
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PREFIX = re.compile(r"[A-Za-z0-9_.:/@-]*")

#: Asked before the mode changes: `(cluster, new mode) -> why not, or None`. Rooms above register what they know.
KueueObjection = Callable[[Cluster, str], str | None]
_objections: list[KueueObjection] = []


def register_kueue_objection(ask: KueueObjection) -> None:
    """Have `ask` consulted before a cluster's kueue_mode changes (in the deciding transaction, cluster locked)."""
    if ask not in _objections:
        _objections.append(ask)


def kueue_objection(cluster: Cluster, mode: str) -> str | None:
    """Return what a room above has against a mode, None where nothing: the first objection."""
    return next((why for ask in _objections if (why := ask(cluster, mode))), None)


def kueue_mode_refusal(cluster: Cluster, mode: str) -> str | None:
    """Return in a sentence why Kueue cannot be used so on a cluster by what was found there, None where it can.

    Where Kueue's configuration may not be read, the admin's word counts.
    """
    if mode == KueueMode.OFF:
        return None
    found = capabilities.of(cluster)
    if found.checked_at is None:
        return "This cluster was not checked yet: check it first."
    if (why := capabilities.kueue_missing(cluster)) is not None:
        return why
    if mode == KueueMode.PODS and found.kueue.pod_integration is False:
        return (
            "Kueue's pod integration is off on this cluster (integrations.frameworks in its configuration lacks “pod”)."
            " Switch it on there and check again, or use Kueue for jobs."
        )
    return None


@transaction.atomic
def set_kueue_mode(
    cluster_id: int,
    mode: str,
    *,
    actor: Actor,
    namespace_labels: Mapping[str, str] | None = None,
    expected_version: int | None = None,
) -> Cluster:
    """Decide how quotas are applied through Kueue on a cluster, and which labels make it manage a namespace.

    `namespace_labels` None: those that the check found. Raises Invalid (mode, namespace_labels), NotAllowed,
    NotVisible, Conflict.
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if mode not in KueueMode.values:
        raise Invalid({"mode": "Choose one of the modes."})
    if mode != cluster.kueue_mode and (why := kueue_mode_refusal(cluster, mode) or kueue_objection(cluster, mode)):
        raise Invalid({"mode": why})
    if namespace_labels is None:
        namespace_labels = capabilities.of(cluster).kueue.managed_labels or {}
    labels = _checked_labels(namespace_labels) if mode != KueueMode.OFF else {}
    changes = _changes(cluster, {"kueue_mode": str(mode), "kueue_namespace_labels": labels})
    if not changes:
        return cluster
    cluster.kueue_mode, cluster.kueue_namespace_labels = mode, labels
    cluster.bump("kueue_mode", "kueue_namespace_labels")
    _record(events.KUEUE_MODE_SET, cluster, changes, actor)
    return cluster


@transaction.atomic
def update_cluster(
    cluster_id: int,
    *,
    actor: Actor,
    name: str | None = None,
    region: str | None = None,
    location: str | None = None,
    jurisdiction: str | None = None,
    group_prefix: str | None = None,
    identity_provider: Mapping[str, Any] | None = None,
    expected_version: int | None = None,
) -> Cluster:
    """Change what a cluster is called and how people sign in to it; None leaves a field as it is.

    A changed group prefix reaches a workspace's role bindings with the next change of that workspace. Raises Invalid
    (fields as named here), NotAllowed, NotVisible, Conflict.
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    errors: dict[str, str] = {}
    wanted: dict[str, Any] = {}
    if name is not None:
        wanted["name"] = name.strip()
        if not wanted["name"] or len(wanted["name"]) > 200:
            errors["name"] = "Give the cluster a name of at most 200 characters."
    if region is not None:
        wanted["region"] = region.strip()
        if len(wanted["region"]) > 60:
            errors["region"] = "At most 60 characters."
    if location is not None:
        wanted["location"] = location
        if location not in Location.values:
            errors["location"] = "Choose where it stands."
    if jurisdiction is not None:
        wanted["jurisdiction"] = jurisdiction.strip().upper()
        if wanted["jurisdiction"] and not regions.known(wanted["jurisdiction"]):
            errors["jurisdiction"] = f"There is no such place. {regions.HINT}"
    if group_prefix is not None:
        wanted["group_prefix"] = group_prefix.strip()
        if problem := group_prefix_problem(wanted["group_prefix"]):
            errors["group_prefix"] = problem
    if identity_provider is not None and dict(identity_provider) != cluster.identity_provider:
        wanted["identity_provider"] = dict(identity_provider)
        if problem := identity_problem(identity_provider, simulated=cluster.simulated):
            errors["identity_provider"] = problem
    if errors:
        raise Invalid(errors)
    changes = _changes(cluster, wanted)
    if not changes:
        return cluster
    if changes.keys() & {"location", "jurisdiction"}:
        places.note_change(cluster, wanted, actor=actor)
    for field in changes:
        setattr(cluster, field, wanted[field])
    cluster.bump(*changes)
    _record(events.CLUSTER_UPDATED, cluster, changes, actor)
    return cluster


def group_prefix_problem(prefix: str) -> str:
    """Return what is wrong with a prefix of groups, "" where nothing is."""
    if len(prefix) > 60 or not _PREFIX.fullmatch(prefix):
        return "At most 60 letters, digits and . _ : / @ -"
    if prefix.lower().startswith("system:"):
        return "Groups that begin with “system:” are Kubernetes' own; a role for one of them would reach everybody."
    return ""


def identity_problem(provider: Mapping[str, Any], *, simulated: bool) -> str:
    """Return what is wrong with an identity provider as people's kubeconfigs use it (see quotas.use_it), else ""."""
    kind = provider.get("type", "")
    if not provider:
        return ""
    if kind == "oidc":
        issuer = urlsplit(str(provider.get("issuer_url", "")))
        if issuer.scheme != "https" or not issuer.hostname:
            return "The issuer's address begins with https://."
        return "" if str(provider.get("client_id", "")).strip() else "Give the client id that kubectl signs in with."
    if kind == "exec":
        command = str(provider.get("command", ""))
        return "" if re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", command) else "Give the program's name, without arguments."
    if kind == "token":
        return ""
    if kind == "tokens_file":
        return "" if simulated else "A file of tokens is for simulated clusters only."
    return "Choose how people sign in: OIDC, a program, or a token of their own."


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise Invalid({"namespace_labels": f"{key}={value} is no label that Kubernetes takes."})
        if key.startswith(("gpu-commons/", "kubernetes.io/")):
            raise Invalid({"namespace_labels": f"{key} belongs to somebody else than Kueue."})
    if len(labels) > 10:
        raise Invalid({"namespace_labels": "At most ten labels."})
    return dict(sorted(labels.items()))


def _changes(cluster: Cluster, wanted: Mapping[str, Any]) -> dict[str, list[str]]:
    return {
        field: [_text(getattr(cluster, field)), _text(value)]
        for field, value in wanted.items()
        if getattr(cluster, field) != value
    }


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)


def _record(event: EventType, cluster: Cluster, changes: dict[str, list[str]], actor: Actor) -> None:
    payload = events.ClusterUpdated(cluster.slug, cluster.name, changes)
    audit.record(event, payload, actor=actor, subject_type="clusters.cluster", subject_uid=cluster.uid)
