"""A field that somebody once edited is taken over where it lives as the portal applied it, and nowhere else. Pure."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.canonical import canonical_bytes
from apps.provisioning import applier, diff, ordering, planner, takeover
from apps.provisioning.applier import Outcome, Target, Work
from apps.provisioning.ordering import Key, key_of
from apps.provisioning.takeover import Last
from tests.cluster.fixtures import workspace
from tests.provisioning.fake import FakeClient

QUOTA = Key("ResourceQuota", "a", "gpu-quota")
GPUS = ("spec", "hard", "requests.nvidia.com/gpu")
Manifest = dict[str, Any]


class Portal:
    """Applies generations and remembers what was applied, as the database does."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.last: dict[Key, Last] = {}

    def plan(self, manifests: list[Manifest]) -> list[planner.Entry]:
        """Plan with what was last applied."""
        return planner.make(self.client, manifests, last=self.last)

    def apply(self, manifests: list[Manifest]) -> Outcome:
        """Apply with what was last applied, and remember."""
        targets = []
        for manifest in ordering.in_order(manifests):
            key, body = key_of(manifest), canonical_bytes(manifest)
            last = self.last.get(key)
            before = canonical_bytes(last.body) if last else b""
            settled = last.settled if last and before == body else None
            targets.append(Target(key, body, before, settled, last=last))
        outcome = applier.run(self.client, Work(targets))
        if outcome.succeeded:
            declared = {key_of(manifest): manifest for manifest in manifests}
            self.last |= {key: Last(declared[key], settled) for key, settled in outcome.settled.items()}
        return outcome


def _entry(entries: list[planner.Entry]) -> planner.Entry:
    return next(entry for entry in entries if entry["kind"] == "ResourceQuota")


@pytest.fixture
def portal() -> Portal:
    """With a workspace of 8 GPUs applied."""
    made = Portal()
    assert made.apply(workspace("a", 8)).succeeded
    return made


@pytest.mark.requirement("provisioning-3.11", "provisioning-2.4")
def test_what_was_set_back_by_hand_is_taken_over(portal: Portal) -> None:
    """The plan says from whom, the run too; the next plan is empty and nothing is taken twice."""
    portal.client.edit(QUOTA, GPUS, "20")
    portal.client.edit(QUOTA, GPUS, "8")
    entry = _entry(portal.plan(workspace("a", 0)))
    assert entry["conflicts"] == []
    assert [(one["manager"], one["field"]) for one in entry["taken_over"]] == [
        ("kubectl-edit", ".spec.hard.requests.nvidia.com/gpu")
    ]
    assert [(one["before"], one["after"]) for one in entry["changes"]] == [("8", "0")]
    outcome = portal.apply(workspace("a", 0))
    assert outcome.succeeded
    taken = [row for row in outcome.results if row.get("taken_over")]
    assert [(row["verb"], row["kind"], row["status"]) for row in taken] == [("apply", "ResourceQuota", 200)]
    assert taken[0]["taken_over"] == [{"manager": "kubectl-edit", "field": ".spec.hard.requests.nvidia.com/gpu"}]
    assert outcome.taken == [f"{QUOTA}: .spec.hard.requests.nvidia.com/gpu held by kubectl-edit"]
    assert planner.is_empty(portal.plan(workspace("a", 0)))
    assert not portal.apply(workspace("a", 3)).taken


@pytest.mark.requirement("provisioning-3.11", "provisioning-3.3")
@pytest.mark.parametrize(
    ("path", "value"),
    [(GPUS, "20"), (("spec", "hard", "pods"), "999"), (("metadata", "labels", "gpu-commons/managed"), "no")],
)
def test_a_field_that_lives_differently_stays_a_conflict(portal: Portal, path: tuple[str, ...], value: str) -> None:
    """Also where another field of the object could be taken over: force would count for both."""
    portal.client.edit(QUOTA, GPUS, "8", "helm")
    portal.client.edit(QUOTA, path, value)
    entry = _entry(portal.plan(workspace("a", 3)))
    assert [one["manager"] for one in entry["conflicts"]] == ["kubectl-edit"]
    portal.client.writes.clear()
    outcome = portal.apply(workspace("a", 3))
    assert outcome.stop_class == "conflict"
    assert "kubectl-edit" in outcome.stop
    assert "helm" not in outcome.stop
    assert portal.client.writes == []


@pytest.mark.requirement("provisioning-3.11", "provisioning-3.3")
def test_a_field_that_the_portal_never_applied_stays_a_conflict(portal: Portal) -> None:
    """It was somebody else's all along."""
    portal.client.edit(QUOTA, ("spec", "hard", "count/jobs.batch"), "5", "helm")
    manifests = workspace("a", 8)
    quota = next(one for one in manifests if one["kind"] == "ResourceQuota")
    quota["spec"]["hard"]["count/jobs.batch"] = "9"
    assert [one["manager"] for one in _entry(portal.plan(manifests))["conflicts"]] == ["helm"]
    assert portal.apply(manifests).stop_class == "conflict"
    assert planner.make(portal.client, workspace("a", 9))[0]["operation"] == "unchanged"


@pytest.mark.requirement("provisioning-3.11")
def test_without_a_record_of_what_was_applied_every_conflict_stands(portal: Portal) -> None:
    """Nothing tells then whether what lives there was ever approved."""
    portal.client.edit(QUOTA, GPUS, "8")
    portal.last = {}
    assert _entry(portal.plan(workspace("a", 3)))["conflicts"]
    assert portal.apply(workspace("a", 3)).stop_class == "conflict"


@pytest.mark.requirement("provisioning-3.11")
def test_an_edit_between_the_last_look_and_the_write_is_not_overwritten(portal: Portal) -> None:
    """The server refuses the version that was looked at; the next attempt sees a conflict."""
    portal.client.edit(QUOTA, GPUS, "8")
    forced = portal.client.apply

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("force"):
            portal.client.edit(QUOTA, GPUS, "20")
        return forced(*args, **kwargs)

    portal.client.apply = meanwhile  # type: ignore[method-assign]  # somebody edits at the worst moment
    outcome = portal.apply(workspace("a", 3))
    assert outcome.error is not None
    assert outcome.error.code == "stale_read"
    assert portal.client.objects[QUOTA]["spec"]["hard"][GPUS[-1]] == "20"
    assert portal.apply(workspace("a", 3)).stop_class == "conflict"


@pytest.mark.requirement("provisioning-3.11", "provisioning-3.10")
@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.lists(st.tuples(st.sampled_from(["helm", "kubectl-edit"]), st.integers(0, 2)), max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_plan_apply_plan_is_empty_whoever_shares_fields(
    generations: list[tuple[int, list[tuple[str, int]]]],
) -> None:
    """Whatever was edited and set back between generations: no conflict, and a plan is empty after its apply."""
    portal = Portal()
    for gpus, edits in generations:
        manifests = workspace("a", gpus)
        planned = portal.plan(manifests)
        assert not any(entry["conflicts"] for entry in planned)
        outcome = portal.apply(manifests)
        assert outcome.succeeded
        assert {one["manager"] for entry in planned for one in entry["taken_over"]} == {
            one["manager"] for row in outcome.results for one in row.get("taken_over", [])
        }
        assert planner.is_empty(portal.plan(manifests))
        for manager, which in edits:
            path = [GPUS, ("spec", "hard", "pods"), ("metadata", "labels", "gpu-commons/managed")][which]
            kept: Any = portal.client.objects[QUOTA]
            for part in path:
                kept = kept[part]
            portal.client.edit(QUOTA, path, "99", manager)
            portal.client.edit(QUOTA, path, kept, manager)


_LAST = {
    "metadata": {"labels": {"a": "1", "a.b": "2"}},
    "spec": {
        "hard": {"requests.nvidia.com/gpu": "8"},
        "limits": [{"type": "Container", "default": {"cpu": "1"}}],
        "ports": [{"name": "web", "port": 80}, {"containerPort": 9, "image": "x"}],
    },
}


@pytest.mark.requirement("provisioning-3.11")
@pytest.mark.parametrize(
    ("field", "edit", "taken"),
    [
        (".spec.hard.requests.nvidia.com/gpu", {}, True),
        (".spec.hard.requests.nvidia.com/gpu", {"spec": {"hard": {"requests.nvidia.com/gpu": "8000m"}}}, True),
        (".spec.hard.requests.nvidia.com/gpu", {"spec": {"hard": {"requests.nvidia.com/gpu": "9"}}}, False),
        (".spec.limits", {}, True),
        (".spec.limits", {"spec": {"limits": [{"type": "Container", "default": {"cpu": "2"}}]}}, False),
        (".spec.limits[0].default.cpu", {}, True),
        (".spec.limits[7]", {}, False),
        (".metadata.labels.a.b", {}, True),
        (".metadata.labels.a.c", {}, False),
        ('.spec.ports[name="web"].port', {}, True),
        ('.spec.ports[name="web"].port', {"spec": {"ports": [{"name": "web", "port": 81}]}}, False),
        ('.spec.ports[containerPort=9,protocol="TCP"].image', {}, True),
        ('.spec.ports[="web"]', {}, False),
        (".spec.ports[name=web].port", {}, False),
        (".spec.ports[name", {}, False),
        (".spec.nothing", {}, False),
        ("", {"spec": {}}, False),
        ("spec.hard", {}, False),
    ],
)
def test_only_a_path_that_can_be_followed_is_taken_over(field: str, edit: Manifest, taken: bool) -> None:
    """As the server writes it: dots within keys, items by their keys, by place; anything else is a conflict."""
    live: Manifest = copy.deepcopy(_LAST)
    for name, value in edit.get("spec", {}).items():
        live["spec"][name] = value
    if edit == {"spec": {}}:
        live["spec"] = {}
    cause = {"manager": "helm", "field": field, "message": ""}
    settled = Last(_LAST, diff.strip(_LAST))
    assert takeover.split([cause], settled, _LAST, live) == (([cause], []) if taken else ([], [cause]))


@pytest.mark.requirement("provisioning-3.11")
def test_what_the_server_left_out_of_its_list_is_looked_at_too(portal: Portal) -> None:
    """Force would take it over as well, so it has to live as applied as well."""
    portal.client.edit(QUOTA, GPUS, "8", "helm")
    portal.client.edit(QUOTA, ("spec", "hard", "pods"), "999")
    live = portal.client.get(*(QUOTA.kind, QUOTA.name, QUOTA.namespace))
    declared = next(one for one in workspace("a", 3) if one["kind"] == "ResourceQuota")
    cause = {"manager": "helm", "field": ".spec.hard.requests.nvidia.com/gpu", "message": ""}
    _, contested = takeover.split([cause], portal.last[QUOTA], declared, live)
    assert [(one["manager"], one["field"]) for one in contested] == [("kubectl-edit", ".spec.hard.pods")]


@pytest.mark.requirement("provisioning-3.11")
def test_a_manager_that_calls_itself_like_a_mail_address_is_still_told() -> None:
    """The audit trail keeps no mail addresses."""
    cause = {"manager": "tool@example.com", "field": ".spec", "message": ""}
    assert takeover.told([cause]) == ".spec held by tool at example.com"
