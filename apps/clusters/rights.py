"""Asking a cluster whether it lets the portal do what it needs: one SelfSubjectAccessReview per verb and resource."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from apps.clusters.errors import Forbidden
from apps.clusters.rbac import NEEDS, Need, Part, needs
from apps.clusters.steps import FAILED, OK, SKIPPED, WARNING, Step, step

#: Parts that are used only where an admin switches them on, with the word for what they are for.
_BY_CHOICE = {"guard": "the guard", "enforcement": "enforcement"}
#: Reviews in flight at once.
PARALLEL = 5


class Client(Protocol):
    """What is called of `KubernetesClient`."""

    def create(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Any:
        """One POST."""
        ...


def reviews(need: Need) -> list[tuple[str, dict[str, Any]]]:
    """Return the questions behind a need, each with the right in words: `patch jobs.batch`."""
    if need.is_path:
        return [
            (f"{verb} {need.resource}", {"nonResourceAttributes": {"verb": verb, "path": need.resource}})
            for verb in need.verbs
        ]
    resource, _, subresource = need.resource.partition("/")
    full = f"{resource}.{need.group}" if need.group else resource
    found = []
    for verb in need.verbs:
        for name in need.names or ("",):
            attributes = {"verb": verb, "group": need.group, "resource": resource}
            words = f"{verb} {full}{'/' + subresource if subresource else ''}"
            for key, value in (("subresource", subresource), ("namespace", need.namespace), ("name", name)):
                if value:
                    attributes[key] = value
            words += f" {name}" if name else ""
            words += f" in {need.namespace}" if need.namespace else ""
            found.append((words, {"resourceAttributes": attributes}))
    return found


def allowed(client: Client, spec: Mapping[str, Any]) -> bool:
    """Ask one question. Raises Forbidden where even asking is refused."""
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": dict(spec)}
    return bool((client.create(review).object.get("status") or {}).get("allowed"))


def check(client: Client, part: Part, *, used: bool) -> Step:
    """Return the step about the rights of one part; `used`: it works with them already, so a missing one fails.

    Raises ClusterError where the cluster stops answering.
    """
    key = f"rights-{part.key}"
    asked = [(need, words, spec) for need in needs([part.key]) for words, spec in reviews(need)]
    try:
        with ThreadPoolExecutor(max_workers=PARALLEL, thread_name_prefix="rights") as pool:
            futures = [pool.submit(contextvars.copy_context().run, allowed, client, spec) for _, _, spec in asked]
            answers = [future.result() for future in futures]
    except Forbidden:
        return step(
            key, FAILED, "The cluster does not even let the portal ask for its rights.",
            "Apply what the portal needs there: it includes selfsubjectaccessreviews.",
        )  # fmt: skip
    missing = [(need, words) for (need, words, _), granted in zip(asked, answers, strict=True) if not granted]
    if not missing:
        return step(key, OK, f"All {len(asked)} rights are there.")
    items = [f"{words}: without it {need.breaks}" for need, words in missing]
    advice = "Apply what the portal needs there again (see “What the portal needs”), then check again."
    if part.key in _BY_CHOICE and not used and _none_of_its_own(part, [need for need, _ in missing]):
        word = _BY_CHOICE[part.key]
        detail = f"Not granted, and only needed for {word}."
        return step(key, SKIPPED, detail, f"Generate the role with {word} to use it.")
    outcome = FAILED if used else WARNING
    return step(key, outcome, f"{len(missing)} of {len(asked)} rights are missing.", advice, items)


def _none_of_its_own(part: Part, missing: Sequence[Need]) -> bool:
    """Whether nothing of what this part alone needs was granted: then it was not meant to be used."""
    elsewhere = {(need.group, need.resource) for need in NEEDS if need.part != part.key}
    own = [need for need in needs([part.key]) if (need.group, need.resource) not in elsewhere]
    return all(need in missing for need in own or needs([part.key]))


__all__ = ["allowed", "check", "reviews"]
