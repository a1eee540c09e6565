"""Live objects by LIST: the server makes the next page while the one before is looked through. Network only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from apps.clusters import kinds
from apps.clusters.clients.kubernetes import KubernetesClient, Page
from apps.clusters.errors import NotFound


def managed(client: KubernetesClient, wanted: Sequence[str]) -> Iterator[Page]:
    """Read the managed objects of these kinds, page by page. Raises ClusterError."""
    for kind in wanted:
        try:
            yield from client.pages(kind, label_selector=kinds.MANAGED_SELECTOR)
        except NotFound:
            # The kind itself is gone (its definition was deleted): that ails what is of it, not the whole cluster.
            continue


def ahead(pages: Iterator[Page], meanwhile: Callable[[], None]) -> Iterator[Page]:
    """Yield pages, reading one ahead; `meanwhile` is done while the first is on its way. Raises what `pages` raises."""
    with ThreadPoolExecutor(1, thread_name_prefix="list") as reader:
        following = reader.submit(next, pages, None)
        meanwhile()
        while (page := following.result()) is not None:
            following = reader.submit(next, pages, None)
            yield page
