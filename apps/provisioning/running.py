"""Applying to one cluster under its lease: five lanes, newly approved first, in slices of ten seconds.

The task's own thread reads and writes the database; the lanes do network only. Where much is due, attempts are begun
and recorded many at a time and wait in a short queue; what is declared meanwhile goes to its head, so an approval in
the middle of a mass apply waits for one declaration and not for the queue.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Exists, F, OuterRef, Q, prefetch_related_objects

from apps.clusters.clients.guard import no_transaction
from apps.clusters.clients.kubernetes import KubernetesClient
from apps.clusters.errors import ClusterError, Throttled
from apps.clusters.health import record_contact, record_throttle
from apps.clusters.models import Cluster
from apps.clusters.selectors import may_apply_now
from apps.core import clock, leases
from apps.core.errors import Conflict
from apps.provisioning import applier, listing, recording, sightings, works
from apps.provisioning.among import Among
from apps.provisioning.applier import Outcome, Work
from apps.provisioning.choices import DeclarationStatus, Removal, RunOutcome
from apps.provisioning.lanes import Lanes
from apps.provisioning.models import ApplyRun, Declaration, DeclaredObject
from apps.provisioning.ordering import Key, key_of
from apps.provisioning.querysets import DeclarationQuerySet

logger = logging.getLogger(__name__)

#: Calls in flight per cluster.
LANES = 5
#: How long one slice of work takes at most before others get their turn.
SLICE_SECONDS = 10.0
#: A worker that dies holds its cluster up for at most so long.
LEASE_SECONDS = 30.0
#: From so many due declarations on, live objects are read by LIST instead of one by one.
LIST_FROM = 20
#: Then so many attempts are begun and recorded in one transaction, and so many where nothing had to be sent.
AT_ONCE, UNCHANGED_AT_ONCE = 25, 1000
#: More are begun as soon as no more than so many wait: as long as they last the lanes need nothing of the database.
LOW_WATER = 15
#: How often the task looks for newly declared work, and how long it waits for an outcome.
_LOOK_SECONDS = 0.05


def due(cluster_id: int | None = None) -> DeclarationQuerySet:
    """Return the declarations that are to be applied now."""
    rows: DeclarationQuerySet = Declaration.objects.filter(
        Q(retry_at__isnull=True) | Q(retry_at__lte=clock.now()),
        generation__gt=F("observed_generation"),
        status=DeclarationStatus.APPLYING,
    )
    return rows.filter(cluster_id=cluster_id) if cluster_id is not None else rows


def _declared_since(cluster_id: int, at: datetime) -> bool:
    """Whether anything that is due and never tried was declared after `at`.

    Asked twenty times a second beside a mass apply: plain SQL, for which nothing has to be put together.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM provisioning_declaration WHERE cluster_id = %s AND declared_at > %s AND attempts = 0"
            " AND status = %s AND generation > observed_generation AND (retry_at IS NULL OR retry_at <= %s) LIMIT 1",
            [cluster_id, at, DeclarationStatus.APPLYING, clock.now()],
        )
        return cursor.fetchone() is not None


def clusters_due() -> list[Cluster]:
    """Return the clusters that have something due and may be called."""
    ids = due().values_list("cluster_id", flat=True).distinct()
    return [cluster for cluster in Cluster.objects.filter(pk__in=list(ids)).order_by("pk") if may_apply_now(cluster)[0]]


def apply_cluster(cluster_id: int, *, seconds: float = SLICE_SECONDS) -> tuple[int, bool]:
    """Apply what is due on one cluster; returns (attempts recorded, whether work is left for another slice).

    Returns at once where another worker holds the cluster's lease. Raises TransactionOpen inside a transaction.
    """
    no_transaction("applying")
    done = 0
    deadline = time.monotonic() + seconds
    while True:
        cluster = Cluster.objects.filter(pk=cluster_id).first()
        if cluster is None or not may_apply_now(cluster)[0] or not due(cluster_id).exists():
            return done, False
        token = leases.claim(recording.lease_name(cluster), seconds=LEASE_SECONDS)
        if token is None:
            return done, False
        piece = _Slice(cluster, token, deadline)
        try:
            done += piece.run()
        except Exception:
            leases.release(recording.lease_name(cluster), token)
            raise
        # On anything else (the process is going down) calls may still be in flight: the lease runs out by itself.
        leases.release(recording.lease_name(cluster), token)
        if piece.lost or time.monotonic() >= deadline:
            return done, True
        # Once more round: what was declared after the last look saw the lease held and left.


class _Slice:
    """One turn of work on one cluster."""

    def __init__(self, cluster: Cluster, token: uuid.UUID, deadline: float) -> None:
        self.cluster = cluster
        self.token = token
        self.deadline = deadline
        self.lost = False
        self.closing = False
        self.snapshot: dict[Key, dict[str, Any] | None] = {}
        self.listed: set[int] = set()
        #: Those that were applied before and what is known of them, read before the lists were.
        self.landed: list[Declaration] = []
        self.known = sightings.Known()
        #: Declarations with an attempt that is written down and not yet recorded.
        self.taken: set[int] = set()
        self.finished: list[tuple[ApplyRun, Outcome]] = []
        #: How many attempts are begun and recorded together; one by one where little is due.
        self.batch = 1
        #: What was declared later than anything begun goes before what waits, and is recorded without waiting.
        self.newest: datetime | None = None
        self.urgent: set[int] = set()
        self.picked = 0
        #: The last look found nothing that is due and not taken: what comes now is new or due anew.
        self.exhausted = False
        self._looked = 0.0
        self._extended = time.monotonic()

    def run(self) -> int:
        """Work until nothing is due, time is up, the lease is lost or the cluster fails; returns attempts recorded."""
        recording.abandon_dead_runs(self.cluster, self.token)
        try:
            client = KubernetesClient.for_cluster(self.cluster)
        except ClusterError as error:
            record_contact(self.cluster.pk, False, error)
            return 0
        if not self._list(client):
            return 0
        recorded = self._record_unchanged()

        def call(run: ApplyRun, work: Work) -> Outcome:
            return applier.run(client, work, self.snapshot if run.declaration_id in self.listed else None)

        with Lanes(call, LANES, careful=bool(self.cluster.consecutive_failures)) as lanes:
            while True:
                self._keep_lease()
                if self.closing:
                    self._give_back(lanes.close())
                while self._pick(lanes):
                    pass
                if not self.taken:
                    return recorded
                done = lanes.outcomes(_LOOK_SECONDS)
                for run, outcome in done:
                    self._finish(run, outcome)
                enough = len(self.finished) >= self.batch or len(self.finished) == len(self.taken)
                if enough or not done or any(run.declaration_id in self.urgent for run, _ in self.finished):
                    recorded += self._record()

    def _list(self, client: KubernetesClient) -> bool:
        """Read live objects by LIST where much is due; False where the cluster failed."""
        rows = list(due(self.cluster.pk).values_list("pk", "applied_at", "version")[: LIST_FROM * 500])
        if len(rows) < LIST_FROM:
            return True
        landed = {pk: version for pk, applied_at, version in rows if applied_at is not None}
        known = sightings.known_of(list(landed))
        # What was never applied mostly lies in a namespace that is not there yet: then nothing else is asked for.
        new = DeclaredObject.objects.filter(
            namespace="", removal=Removal.NONE, declaration_id__in=[pk for pk, *_ in rows if pk not in landed]
        )
        self.snapshot = dict.fromkeys(key for objects in known.objects.values() for key in objects)
        self.snapshot |= {Key(*key): None for key in new.order_by().values_list("kind", "namespace", "name")}
        try:
            pages = listing.managed(client, sorted({key.kind for key in self.snapshot}))
            for page in listing.ahead(pages, lambda: self._load(landed, known)):
                for item in page.items:
                    if (key := key_of(item)) in self.snapshot:
                        self.snapshot[key] = item
                self._keep_lease()
        except ClusterError as error:
            if isinstance(error, Throttled):
                record_throttle(self.cluster.pk, error.retry_after)
            elif error.cluster_wide or error.retryable:
                record_contact(self.cluster.pk, False, error)
            else:  # no right to list: one by one, then
                self.snapshot, self.landed = {}, []
                return True
            return False
        self.listed, self.batch = {pk for pk, *_ in rows}, AT_ONCE
        return True

    def _load(self, landed: dict[int, int], known: sightings.Known) -> None:
        """Read the declarations that may turn out to live as declared, unless declared anew since that was read."""
        before = ApplyRun.objects.filter(
            declaration=OuterRef("pk"), generation=OuterRef("generation"), outcome=RunOutcome.SUCCEEDED
        )
        pks = landed.keys() & known.objects.keys() - known.barred
        rows = Declaration.objects.filter(Among("pk", pks)).annotate(confirmed=Exists(before)).order_by("pk")
        self.known, self.landed = known, [row for row in rows if row.version == landed[row.pk]]
        prefetch_related_objects(self.landed, "team")
        for row in self.landed:
            row.cluster = self.cluster  # one object for all: each of them would be made anew from its columns

    def _keep_lease(self) -> None:
        if time.monotonic() >= self.deadline:
            self.closing = True
        if time.monotonic() - self._extended > LEASE_SECONDS / 3:
            self._extended = time.monotonic()
            if not leases.extend(recording.lease_name(self.cluster), self.token, seconds=LEASE_SECONDS):
                self.lost = self.closing = True

    def _record_unchanged(self) -> int:
        """Record at once what lives as declared by the lists: nothing is sent for it. Returns how many."""
        recorded = 0
        for start in range(0, len(self.landed), UNCHANGED_AT_ONCE):
            self._keep_lease()
            if self.closing:
                break
            alike = self._alike(self.landed[start : start + UNCHANGED_AT_ONCE])
            if not alike:
                continue
            try:
                recorded += recording.record_unchanged(self.cluster, self.token, alike)
            except Conflict:
                self.lost = self.closing = True
                break
            except Exception:
                # Then one by one, as what has to be sent: the one that cannot be recorded holds up no other.
                logger.exception("what lives as declared could not be recorded", extra={"cluster": self.cluster.slug})
        return recorded

    def _alike(self, chunk: Sequence[Declaration]) -> list[tuple[Declaration, Outcome]]:
        """Return which of these live as declared: by resource version, else by a look at every field."""
        same: dict[int, list[Key]] = {}
        moved: dict[int, list[Key]] = {}
        for row in chunk:
            objects = self.known.objects[row.pk]
            same[row.pk] = [key for key, version in objects.items() if applier.unmoved(version, self.snapshot[key])]
            if len(same[row.pk]) < len(objects):
                moved[row.pk] = [key for key in objects if key not in same[row.pk]]
        looked = works.works_of([row for row in chunk if row.pk in moved])
        alike = []
        for row in chunk:
            targets = looked[row.pk].targets if row.pk in looked else ()
            work = Work([target for target in targets if target.key in moved[row.pk]])
            if len(work.targets) < len(moved.get(row.pk, ())):
                continue  # declared anew between the two readings
            if (outcome := applier.unchanged(work, self.snapshot)) is not None:
                outcome.reconciled, outcome.confirmed = True, bool(getattr(row, "confirmed", False))
                outcome.as_seen = same[row.pk]
                outcome.applied.extend(outcome.as_seen)
                alike.append((row, outcome))
        return alike

    def _pick(self, lanes: Lanes) -> bool:
        """Write down the attempts that come next and queue them; whether there were any."""
        chosen = [] if self.closing else self._choose(lanes)
        if not chosen:
            return False
        try:
            runs = self._begin(chosen)
        except Conflict:
            self.lost = self.closing = True
            return False
        prepared = works.works_of(chosen)
        self.taken.update(row.pk for row in chosen)
        fresh = {row.pk for row in chosen if self.newest and row.declared_at and row.declared_at > self.newest}
        self.urgent |= fresh
        dates = [row.declared_at for row in chosen if row.declared_at]
        self.newest = max([*dates, *([self.newest] if self.newest else [])], default=None)
        pairs = [(run, prepared[run.declaration_id]) for run in runs]
        lanes.put([pair for pair in pairs if pair[0].declaration_id not in fresh])
        lanes.put([pair for pair in pairs if pair[0].declaration_id in fresh], first=True)
        return True

    def _begin(self, chosen: list[Declaration]) -> list[ApplyRun]:
        if self.batch == 1:
            return [recording.begin(self.cluster, self.token, declaration) for declaration in chosen]
        return recording.begin_many(self.cluster, self.token, chosen)

    def _choose(self, lanes: Lanes) -> list[Declaration]:
        """Return what to begin now: what free lanes need or, where much is due, a batch ahead."""
        if self.batch == 1:
            found = self._next() if lanes.free else None
            return [found] if found is not None else []
        now = time.monotonic()
        if lanes.waiting < LOW_WATER and not self.exhausted:
            chosen = self._ahead()
            self.exhausted, self._looked = not chosen, now
            return chosen
        if now - self._looked < _LOOK_SECONDS:
            return []
        self._looked = now
        if self.newest and not _declared_since(self.cluster.pk, self.newest):
            return []
        rows = self._idle().filter(attempts=0, declared_at__gt=self.newest) if self.newest else self._idle()
        return list(rows.order_by("-declared_at", "-pk")[:LANES])

    def _idle(self) -> DeclarationQuerySet:
        return due(self.cluster.pk).exclude(pk__in=self.taken)

    def _next(self) -> Declaration | None:
        """Return what to apply next: never tried before tried, newest first; every fifth pick takes the oldest."""
        rows = self._idle()
        self.picked += 1
        if self.picked % LANES == 0:
            return rows.order_by("declared_at", "pk").first()
        fresh = rows.filter(attempts=0).order_by("-declared_at", "-pk").first()
        return fresh or rows.order_by(F("retry_at").asc(nulls_first=True), "declared_at", "pk").first()

    def _ahead(self) -> list[Declaration]:
        """Return a batch in the order of `_next`: newest never tried, a fifth of the oldest, then what failed."""
        rows = self._idle()
        share = self.batch // LANES
        chosen = list(rows.filter(attempts=0).order_by("-declared_at", "-pk")[: self.batch - share])
        chosen += rows.exclude(pk__in=[row.pk for row in chosen]).order_by("declared_at", "pk")[:share]
        if len(chosen) < self.batch:
            tried = rows.exclude(pk__in=[row.pk for row in chosen])
            chosen += tried.order_by(F("retry_at").asc(nulls_first=True), "pk")[: self.batch - len(chosen)]
        return chosen

    def _finish(self, run: ApplyRun, outcome: Outcome | Exception) -> None:
        if isinstance(outcome, Exception):
            logger.error("an apply run failed in the portal itself", exc_info=outcome, extra={"run": str(run.uid)})
            self._crashed(run, outcome)
            self.taken.discard(run.declaration_id)
            return
        self.finished.append((run, outcome))
        if outcome.error is not None and outcome.error.cluster_wide:
            self.closing = True

    def _record(self) -> int:
        """Record what has finished; returns how many attempts. What cannot be recorded holds up no other."""
        finished, self.finished = self.finished, []
        self.taken.difference_update(run.declaration_id for run, _ in finished)
        if not finished or self.lost:
            return 0
        if len(finished) > 1 and self.batch > 1:
            try:
                recording.finish_many(self.cluster, self.token, finished)
                return len(finished)
            except Conflict:
                self.lost = self.closing = True
                return 0
            except Exception:
                logger.exception("attempts could not be recorded together", extra={"cluster": self.cluster.slug})
        recorded = 0
        for run, outcome in finished:
            try:
                recording.finish(self.cluster, self.token, run, outcome)
            except Conflict:
                self.lost = self.closing = True
                return recorded
            except Exception as error:
                logger.exception("an apply run could not be recorded", extra={"run": str(run.uid)})
                self._crashed(run, error)
            recorded += 1
        return recorded

    def _crashed(self, run: ApplyRun, error: Exception) -> None:
        try:
            recording.crashed(self.cluster, self.token, run, error)
        except Conflict:
            self.lost = self.closing = True

    def _give_back(self, runs: Sequence[ApplyRun]) -> None:
        """What waits for a lane when the slice ends was not tried."""
        self.taken.difference_update(run.declaration_id for run in runs)
        try:
            recording.give_back(self.cluster, self.token, runs)
        except Conflict:
            self.lost = True
