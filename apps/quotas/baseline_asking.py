"""Requesting a baseline of a large cluster: asked for on a page, worked out by a worker, followed until it is there.

Rendering and comparing the objects of a thousand workspaces takes seconds of a processor: no page waits for that.
"""

from __future__ import annotations

from django.db import transaction

from apps.accounts.models import User
from apps.clusters.models import Cluster
from apps.core import clock, leases
from apps.core.actor import Actor, Channel
from apps.core.errors import CommonsError, Conflict, Invalid
from apps.core.sweeps import nudge
from apps.quotas import baseline_look, changes
from apps.quotas.choices import ChangeKind
from apps.quotas.models import BaselineState, ChangeRequest, Workspace

#: From so many workspaces on a worker does it.
LARGE = 100
LEASE_SECONDS = 600.0


def is_large(cluster: Cluster) -> bool:
    """Whether a worker makes the request of this cluster's baseline. One query."""
    return Workspace.objects.filter(cluster=cluster)[:LARGE].count() >= LARGE


def asked(cluster: Cluster) -> BaselineState | None:
    """Return what is asked for and not worked out yet; None: nothing. One query."""
    rows = BaselineState.objects.filter(cluster=cluster, asked_at__isnull=False)
    return rows.select_related("asked_by").first()


def request(cluster_id: int, reason: str, *, actor: Actor) -> ChangeRequest | None:
    """Request a cluster's baseline; None where a worker makes the request (see `asked`).

    Raises what `changes.request_change` raises; what only the worker finds out stays with the cluster as a problem.
    """
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None or not is_large(cluster):
        return changes.request_change(ChangeKind.BASELINE, cluster_id=cluster_id, values={}, reason=reason, actor=actor)
    ask(cluster_id, reason, actor=actor)
    return None


@transaction.atomic
def ask(cluster_id: int, reason: str, *, actor: Actor) -> BaselineState:
    """Have a worker make the request, in the person's name. Raises NotVisible, NotAllowed, Invalid, Conflict."""
    user = changes.acting_user(actor)
    cluster, _ = changes.place(cluster_id, None, user)
    text = changes.checked_reason(reason)
    if not changes.policy_published():
        raise Invalid({"": "No policy for changes is published yet. A platform admin has to publish one first."})
    BaselineState.objects.get_or_create(cluster=cluster)
    state = BaselineState.objects.select_for_update(of=("self",)).get(cluster=cluster)
    if state.asked_at is not None:
        raise Conflict("It is being worked out already.", current={"asked_at": state.asked_at.isoformat()})
    if (found := baseline_look.open_request(cluster)) is not None and found.is_open:
        raise Conflict("A baseline of this cluster is requested already.", current={"request": str(found.uid)})
    state.asked_at, state.asked_by, state.asked_reason, state.asked_problem = clock.now(), user, text, ""
    state.save(update_fields=["asked_at", "asked_by", "asked_reason", "asked_problem"])
    from apps.quotas import tasks

    nudge(tasks.request_baselines)
    return state


def make_due() -> int:
    """Make the requests that were asked for; returns how many were made or refused. Each in a transaction of its own.

    A worker that dies leaves what was asked for as it is: the next sweep makes it once the lease is over.
    """
    done = 0
    for state in list(BaselineState.objects.filter(asked_at__isnull=False).order_by("asked_at", "pk")):
        name = f"baseline-request:{state.cluster_id}"
        token = leases.claim(name, seconds=LEASE_SECONDS)
        if token is None:
            continue
        done += _make(state)
        leases.release(name, token)
    return done


def _make(state: BaselineState) -> int:
    user = User.objects.filter(pk=state.asked_by_id).first() if state.asked_by_id is not None else None
    if user is None:
        return _settle(state, "Nobody asks for it any more.")
    problem = ""
    try:
        with transaction.atomic():
            changes.request_change(
                ChangeKind.BASELINE, cluster_id=state.cluster_id, values={}, reason=state.asked_reason,
                actor=Actor.of(user, Channel.TASK),
            )  # fmt: skip
            return _settle(state, "")
    except Invalid as invalid:
        problem = " ".join(text for texts in invalid.errors.values() for text in texts)
    except CommonsError as refused:
        problem = str(refused)
    return _settle(state, problem)


def _settle(state: BaselineState, problem: str) -> int:
    rows = BaselineState.objects.filter(pk=state.pk, asked_at=state.asked_at)
    return rows.update(asked_at=None, asked_problem=problem[:2000])
