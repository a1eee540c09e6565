"""Changes to clusters: registering, credentials, pausing. Health is in `health.py`, pools in `capacity.py`."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from apps import audit
from apps.audit.actions import INSTALLATION
from apps.clusters import checking, crypto, events
from apps.clusters.access import require
from apps.clusters.addresses import check_address
from apps.clusters.administering import group_prefix_problem, identity_problem, set_kueue_mode, update_cluster
from apps.clusters.capacity import create_flavour, create_pool, set_committable
from apps.clusters.checking import request_check
from apps.clusters.choices import Health
from apps.clusters.errors import AddressRefused
from apps.clusters.health import record_contact, record_throttle
from apps.clusters.kubeconfigs import Access, Refused, read_kubeconfig, token_expiry
from apps.clusters.maintenance import cancel_maintenance, schedule_maintenance
from apps.clusters.models import Cluster
from apps.core import clock
from apps.core.actor import Actor
from apps.core.crypto import Rotated, rotate_columns
from apps.core.errors import Conflict, Invalid
from apps.core.events import EventType

__all__ = [
    "cancel_maintenance",
    "create_flavour",
    "create_pool",
    "pause",
    "record_contact",
    "record_throttle",
    "register_cluster",
    "replace_credentials",
    "request_check",
    "resume",
    "rotate_keys",
    "rotate_other_secrets",
    "schedule_maintenance",
    "set_committable",
    "set_kueue_mode",
    "update_cluster",
]

MANAGE = "clusters.cluster.manage"


class KeysMissing(crypto.CannotDecrypt):
    """Credentials of some clusters cannot be opened: `rotated` were done, `clusters` (slugs) were not."""

    def __init__(self, rotated: int, clusters: list[str]) -> None:
        super().__init__(f"no key in force opens the credentials of {', '.join(clusters)}")
        self.rotated = rotated
        self.clusters = clusters


#: Pages below /clusters/ that a cluster of that name would hide.
_TAKEN_PATHS = frozenset({"new", "needs", "maintenance", "pools", "flavours", "proposals", "inventory", "nodes"})
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+-----END CERTIFICATE-----", re.DOTALL)


@transaction.atomic
def register_cluster(
    name: str,
    *,
    actor: Actor,
    slug: str = "",
    kubeconfig: str = "",
    api_url: str = "",
    ca_certificate: str = "",
    token: str = "",
    region: str = "",
    group_prefix: str = "gpu-commons:",
    identity_provider: dict[str, object] | None = None,
    simulated: bool = False,
) -> Cluster:
    """Register a cluster from a kubeconfig, or from address, CA and token. No call is made: check and probe follow.

    Raises Invalid (fields as named here), NotAllowed, Conflict for a slug that is taken.
    """
    require(actor, MANAGE)
    access = _access(kubeconfig, api_url, ca_certificate, token)
    if not name.strip():
        raise Invalid({"name": "Give the cluster a name."})
    slug = slug or slugify(name)[:40]
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", slug):
        raise Invalid({"slug": "Use up to 40 lower-case letters, digits and hyphens."})
    if slug in _TAKEN_PATHS:
        raise Invalid({"slug": f"{slug} is a page of its own; use another short name."})
    if problem := group_prefix_problem(group_prefix):
        raise Invalid({"group_prefix": problem})
    if problem := identity_problem(identity_provider or {}, simulated=simulated):
        raise Invalid({"identity_provider": problem})
    cluster = Cluster(
        name=name.strip(),
        slug=slug,
        region=region.strip(),
        api_url=access.api_url,
        ca_certificate=access.ca_certificate,
        credentials=crypto.encrypt(access.token),
        credentials_expire_at=token_expiry(access.token),
        simulated=simulated,
        group_prefix=group_prefix,
        identity_provider=identity_provider or {},
    )
    try:
        with transaction.atomic():
            cluster.save(force_insert=True)
    except IntegrityError as error:
        raise Invalid({"slug": f"There is a cluster {slug} already."}) from error
    _record(events.CLUSTER_REGISTERED, cluster, actor)
    checking.queue(cluster, actor)
    return cluster


@transaction.atomic
def replace_credentials(
    cluster_id: int,
    *,
    actor: Actor,
    kubeconfig: str = "",
    api_url: str = "",
    ca_certificate: str = "",
    token: str = "",
    expected_version: int | None = None,
) -> Cluster:
    """Replace token, and address and CA where given. The next call of every process uses them.

    Raises Invalid, NotAllowed, NotVisible, Conflict.
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if not kubeconfig:
        api_url, ca_certificate = api_url or cluster.api_url, ca_certificate or cluster.ca_certificate
    access = _access(kubeconfig, api_url, ca_certificate, token)
    cluster.api_url, cluster.ca_certificate = access.api_url, access.ca_certificate
    cluster.credentials = crypto.encrypt(access.token)
    cluster.credentials_expire_at, cluster.certificate_expires_at = token_expiry(access.token), None
    # New credentials deserve a fresh try: the breaker closes.
    cluster.retry_at, cluster.consecutive_failures, cluster.probed_at = None, 0, None
    cluster.bump(
        "api_url", "ca_certificate", "credentials", "credentials_expire_at", "certificate_expires_at", "retry_at",
        "consecutive_failures", "probed_at",
    )  # fmt: skip
    _record(events.CREDENTIALS_REPLACED, cluster, actor)
    if cluster.paused_at is None:
        checking.queue(cluster, actor)
    return cluster


@transaction.atomic
def pause(cluster_id: int, reason: str, *, actor: Actor, expected_version: int | None = None) -> Cluster:
    """Stop applying to and probing a cluster until it is resumed.

    Raises Invalid without a reason, Conflict where it is paused already.
    """
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if cluster.paused_at is not None:
        raise Conflict("This cluster is paused already.", current={"paused_at": cluster.paused_at.isoformat()})
    if not reason.strip():
        raise Invalid({"reason": "Say why: everybody who waits for this cluster reads it."})
    cluster.paused_at, cluster.pause_reason = clock.now(), reason.strip()[:300]
    cluster.bump("paused_at", "pause_reason")
    _record(events.CLUSTER_PAUSED, cluster, actor, reason=cluster.pause_reason)
    return cluster


@transaction.atomic
def resume(cluster_id: int, *, actor: Actor, expected_version: int | None = None) -> Cluster:
    """Go on with a paused cluster. Raises Conflict where it is not paused."""
    cluster = Cluster.objects.locked(cluster_id, expected_version=expected_version)
    require(actor, MANAGE, cluster)
    if cluster.paused_at is None:
        raise Conflict("This cluster is not paused.")
    if cluster.archived_at is not None:
        raise Conflict("This cluster is archived: bring it back first.")
    cluster.paused_at, cluster.pause_reason, cluster.retry_at = None, "", None
    # What was last seen before the pause says nothing about now.
    if cluster.health == Health.HEALTHY:
        cluster.health = Health.UNKNOWN
    cluster.probed_at = None
    cluster.bump("paused_at", "pause_reason", "retry_at", "health", "probed_at")
    _record(events.CLUSTER_RESUMED, cluster, actor)
    return cluster


def rotate_keys(*, actor: Actor) -> tuple[int, int]:
    """Encrypt every cluster's credentials under the newest key; returns (encrypted anew, all).

    Row by row, each in a transaction of its own, and what is under the newest key already is left alone: after an
    interruption it goes on where it was. Raises KeysMissing naming the clusters that no key in force opens; the others
    are done by then.
    """
    require(actor, MANAGE)
    rotated, missing = 0, []
    ids = list(Cluster.objects.exclude(credentials=b"").order_by("pk").values_list("pk", flat=True))
    for pk in ids:
        with transaction.atomic():
            cluster = Cluster.objects.select_for_update().filter(pk=pk).first()
            if cluster is None or crypto.is_newest(cluster.credentials):
                continue
            try:
                cluster.credentials = crypto.rotate(cluster.credentials)
            except crypto.CannotDecrypt:
                missing.append(cluster.slug)
                continue
            cluster.bump("credentials")
            rotated += 1
    if rotated:
        with transaction.atomic():
            payload = events.KeysRotated(rotated, len(ids))
            audit.record(
                events.KEYS_ROTATED, payload, actor=actor, subject_type="clusters.credentials", subject_uid=INSTALLATION
            )
    if missing:
        raise KeysMissing(rotated, missing)
    return rotated, len(ids)


def rotate_other_secrets(*, actor: Actor) -> Iterator[Rotated]:
    """Encrypt what other rooms keep encrypted under the newest key, column by column (`core.crypto.rotate_columns`)."""
    require(actor, MANAGE)

    def done(one: Rotated) -> None:
        payload = events.KeysRotated(one.rotated, one.total)
        audit.record(
            events.KEYS_ROTATED, payload, actor=actor, subject_type=f"{one.column.model}.{one.column.field}".lower(),
            subject_uid=INSTALLATION,
        )  # fmt: skip

    return rotate_columns(done)


def _no_ca(pem: str) -> str | None:
    """Return what is wrong with a CA certificate, None where it can be used."""
    if not _PEM.search(pem):
        return "This is no PEM certificate (it begins with -----BEGIN CERTIFICATE-----)."
    try:
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        return (
            "This PEM certificate cannot be read. Paste it whole, from -----BEGIN CERTIFICATE----- to"
            " -----END CERTIFICATE-----, without changing its lines."
        )
    return None


def _access(kubeconfig: str, api_url: str, ca_certificate: str, token: str) -> Access:
    field = "kubeconfig" if kubeconfig.strip() else "api_url"
    if kubeconfig.strip():
        if api_url or token:
            raise Invalid({"kubeconfig": "Give either a kubeconfig or address and token, not both."})
        try:
            access = read_kubeconfig(kubeconfig)
        except Refused as refused:
            raise Invalid({"kubeconfig": str(refused)}) from refused
    else:
        if not token.strip():
            raise Invalid({"token": "The portal needs a token of a service account on that cluster."})
        access = Access(api_url, ca_certificate, token.strip())
    if access.ca_certificate and (why := _no_ca(access.ca_certificate)):
        raise Invalid({"kubeconfig" if kubeconfig.strip() else "ca_certificate": why})
    if any(character.isspace() for character in access.token):
        raise Invalid({"token": "A token holds no spaces or line breaks."})
    try:
        # Names are not resolved here: a page must not wait for a name server. The client does it before every call.
        return Access(check_address(access.api_url, resolve=False), access.ca_certificate, access.token)
    except AddressRefused as refused:
        raise Invalid({field: f"{refused.message[:1].upper()}{refused.message[1:]}."}) from refused


def _record(event: EventType, cluster: Cluster, actor: Actor, *, reason: str = "") -> None:
    payload = events.ClusterChanged(cluster.slug, cluster.name, cluster.api_url)
    audit.record(event, payload, actor=actor, subject_type="clusters.cluster", subject_uid=cluster.uid, reason=reason)
