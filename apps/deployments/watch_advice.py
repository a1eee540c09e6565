"""What fails on an endpoint, and what to do about it: pure sentences from what the cluster said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.deployments.live_status import ROUTE, SCALER, SERVICE


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong. `tone`: critical where it does not serve as it should, else caution."""

    tone: str
    title: str
    text: str


def troubles(objects: Mapping[str, Mapping[str, Any]], numbers: Mapping[str, int]) -> list[Trouble]:
    """Return what the condensed objects complain of, the worst first. `numbers`: release uid → its number."""
    found = []
    for place, one in sorted(objects.items()):
        kind, name = one.get("kind"), place.partition("/")[2]
        if kind == SERVICE:
            number = numbers.get(str(one.get("release")))
            found += _service(one, f"Release {number}" if number is not None else name)
        elif kind == SCALER and one.get("trouble"):
            found.append(
                Trouble(
                    "caution",
                    "Scaling does not follow its query",
                    f"KEDA says of {name}: {one['trouble']} It keeps what runs. Check the query and that its Prometheus"
                    " answers.",
                )
            )
        elif kind == ROUTE and one.get("trouble"):
            found.append(
                Trouble(
                    "critical",
                    "Traffic is not routed as declared",
                    f"The gateway says: {one['trouble']}. A backend that is missing comes with its release; a gateway"
                    " that does not accept the route is the platform team's.",
                )
            )
    return sorted(found, key=lambda each: each.tone != "critical")


def _service(one: Mapping[str, Any], who: str) -> list[Trouble]:
    failure, said = one.get("failure") or {}, str(one.get("trouble") or "")
    if one.get("target") == "FailedToLoad" or one.get("transition") in ("BlockedByFailedLoad", "InvalidSpec"):
        why = failure.get("message") or failure.get("reason") or said or "no reason was given"
        return [
            Trouble(
                "critical",
                f"{who} does not load",
                f"The cluster says: {why}. What served before goes on serving. Roll it back; then check location,"
                " format, runtime and memory of the version, and release it anew.",
            )
        ]
    if "exceeded quota" in said:
        return [
            Trouble(
                "critical",
                f"{who} has no room",
                f"{said}. Ask for quota, use fewer or smaller replicas, or end what holds the workspace's quota.",
            )
        ]
    if "no usable" in said or "denied request" in said:
        return [
            Trouble("critical", f"{who} was refused by the cluster", f"{said}. Its approval ended or never covered it.")
        ]
    if said and not one.get("ready") and not one.get("stopped"):
        return [Trouble("caution", f"{who} is not ready", f"The cluster says: {said}.")]
    return []


def bytes_trouble(found: str, approved: str, number: int) -> Trouble | None:
    """Return what to say where the verifying container found other bytes than were approved; None where all is well."""
    if not found or not approved or found == approved:
        return None
    return Trouble(
        "critical",
        f"Release {number} loaded other bytes than were approved",
        f"The verifying container found {found[:12]}…, approved is {approved[:12]}…. Stop the endpoint and have the"
        " storage looked at: somebody changed what lies there.",
    )


def worst(found: Sequence[Trouble]) -> str:
    """Return the tone of the worst; "" where nothing is wrong."""
    return "critical" if any(each.tone == "critical" for each in found) else ("caution" if found else "")
