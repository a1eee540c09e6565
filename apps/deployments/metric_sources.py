"""Where a cluster's live figures are asked for: its source of metering, where that is a Prometheus or says of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from apps.clusters import crypto
from apps.clusters.clients.prometheus import PrometheusClient
from apps.clusters.models import Cluster
from apps.core import clock
from apps.metering.choices import SourceKind
from apps.metering.models import Source

#: Of a source that is no Prometheus: true where its address answers Prometheus' queries, too (Kubecost's bundle, the
#: simulated cluster), or the address of the Prometheus beside it.
OPTION = "prometheus"
NONE = "No Prometheus is known for this cluster: make one its source of metering, or name one in the source's settings."
#: Seconds to connect, seconds without a byte: a figure a minute is not worth longer.
TIMEOUT = (2.0, 10.0)


@dataclass(frozen=True)
class Prometheus:
    """An address with what it takes to ask there.

    `matcher`: narrows a server of several clusters to this one. `scrape_seconds`: how often it reads the pods (option
    of the source of the same name).
    """

    url: str
    token: str = ""
    matcher: str = ""
    scrape_seconds: int = 30

    @property
    def window_seconds(self) -> int:
        """Whole minutes that hold two scrapes: `rate` and `increase` tell nothing of fewer."""
        return 60 * max(1, -(-2 * self.scrape_seconds // 60))

    def client(self) -> PrometheusClient:
        """Return a client that gives up soon: the next minute comes."""
        return PrometheusClient(self.url, token=self.token, timeout=TIMEOUT, attempts=1)


def prometheus_of(cluster: Cluster, at: datetime | None = None) -> Prometheus | None:
    """Return where a cluster's live figures are asked for at a time; None: nowhere (see `NONE`)."""
    row = Source.objects.filter(cluster=cluster, valid__contains=at or clock.now()).first()
    if row is None:
        return None
    matcher = str(row.options.get("cluster_filter", ""))
    every = row.options.get("scrape_seconds")
    scrape = every if isinstance(every, int) and 0 < every <= 300 else Prometheus.scrape_seconds
    told = row.options.get(OPTION)
    if row.kind == SourceKind.PROMETHEUS or told is True:
        return Prometheus(row.url, crypto.decrypt(row.credentials), matcher, scrape)
    # The token is the source's own: another address does not get it.
    known = isinstance(told, str) and told.startswith(("http://", "https://"))
    return Prometheus(str(told), "", matcher, scrape) if known else None
