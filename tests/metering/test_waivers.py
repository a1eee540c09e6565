"""Waivers: by name, with a reason, for at most 92 days, never for shared GPUs; revoked, ended, audited, told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from apps.core.models import OutboxMessage
from apps.metering import fitness, waivers
from apps.metering.models import SourceWaiver
from tests.metering.test_fitness import checked
from tests.metering.world import World

DAY = timedelta(days=1)


def give(world: World, person: Any, **changes: Any) -> SourceWaiver:
    given: dict[str, Any] = {"codes": ["retention"], "reason": "Thanos follows in December.", "days": 30, **changes}
    until = clock.now() + given["days"] * DAY
    return waivers.waive(world.source.pk, given["codes"], given["reason"], until, actor=Actor.of(person))


@pytest.mark.requirement("metering-sources-3.1")
def test_a_waiver_is_given_by_name_for_a_time(world: World, company: Any, frozen_clock: Any) -> None:
    checked(world.source, ["retention", "clock"])
    waiver = give(world, company.finance, codes=["retention", "retention"])
    assert (waiver.waived_by, waiver.codes) == (company.finance, ["retention"])
    found = fitness.unfit(world.source)
    assert found is not None
    assert found.codes == ("clock",)
    give(world, company.admin, codes=["clock"], days=92)
    assert fitness.unfit(world.source) is None
    assert fitness.unfit_sources(clock.now() - DAY, clock.now()) == []
    clock.advance(30 * DAY)
    later = fitness.unfit(world.source)
    assert later is not None
    assert later.codes == ("retention",)


@pytest.mark.requirement("metering-sources-3.1")
@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"codes": []}, "codes", "at least one"),
        ({"codes": ["clock"]}, "codes", "nothing to waive"),
        ({"codes": ["no_such_check"]}, "codes", "nothing to waive"),
        ({"reason": "  "}, "reason", "auditors"),
        ({"reason": "x" * 501}, "reason", "500"),
        ({"days": 0}, "until", "future"),
        ({"days": 93}, "until", "92 days"),
    ],
)
def test_what_is_refused_and_why(world: World, company: Any, changes: Any, field: str, said: str) -> None:
    checked(world.source, ["retention"])
    with pytest.raises(Invalid) as refused:
        give(world, company.finance, **changes)
    assert said in refused.value.errors[field][0]
    assert not SourceWaiver.objects.exists()


@pytest.mark.requirement("metering-sources-3.2")
def test_shared_gpus_are_never_waived(world: World, company: Any) -> None:
    checked(world.source, ["shared_gpus", "retention"])
    assert waivers.waivable(world.source) == ["retention"]
    with pytest.raises(Invalid) as refused:
        give(world, company.admin, codes=["retention", "shared_gpus"])
    assert "cannot be waived" in refused.value.errors["codes"][0]
    # Not even where such a row stands in the table.
    waiver = give(world, company.admin)
    SourceWaiver.objects.filter(pk=waiver.pk).update(codes=["retention", "shared_gpus"])
    found = fitness.unfit(world.source)
    assert found is not None
    assert found.codes == ("shared_gpus",)


@pytest.mark.requirement("metering-sources-3.3")
def test_revoking_makes_the_checks_count_again(world: World, company: Any) -> None:
    checked(world.source, ["retention"])
    waiver = give(world, company.finance)
    with pytest.raises(Conflict):
        waivers.revoke(waiver.pk, actor=Actor.of(company.admin), expected_version=99)
    waivers.revoke(waiver.pk, actor=Actor.of(company.admin), expected_version=waiver.version)
    assert fitness.unfit(world.source) is not None
    with pytest.raises(Conflict):
        waivers.revoke(waiver.pk, actor=Actor.of(company.admin))
    waiver.refresh_from_db()
    assert waiver.revoked_by == company.admin
    events = AuditEvent.objects.filter(action__in=["metering.source.waived", "metering.waiver.revoked"])
    assert sorted(events.values_list("action", flat=True)) == ["metering.source.waived", "metering.waiver.revoked"]
    told = {message.event: message.recipient_ids for message in OutboxMessage.objects.all()}
    assert told == {
        "metering.source.waived": [company.admin.pk],
        "metering.waiver.revoked": [company.finance.pk],
    }


@pytest.mark.requirement("metering-sources-3.3", "metering-sources-5.1")
def test_who_may(world: World, company: Any) -> None:
    checked(world.source, ["retention"])
    waiver = give(world, company.finance)
    for person in (company.vp, company.lead_finance, company.auditor, company.compliance):
        with pytest.raises(NotAllowed):
            give(world, person)
        with pytest.raises(NotAllowed):
            waivers.revoke(waiver.pk, actor=Actor.of(person))
    until = clock.now() + DAY
    with pytest.raises(NotAllowed, match="person's word"):
        waivers.waive(world.source.pk, ["retention"], "A task says so.", until, actor=Actor.system("x"))
