"""What a rule's date and wording rest on, and who of the company has read it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from apps.audit.selectors import events_for
from apps.catalogue import controls_state, regimes_confirming, regimes_data, regimes_publishing
from apps.catalogue.models import CitationConfirmation, Control, Regime
from apps.catalogue.regimes_loading import load_regimes
from apps.core import clock
from apps.core.actor import Actor
from apps.core.errors import Conflict, Invalid, NotAllowed
from tests.factories import Company, client_for

READ = "OJ L, 2026/1744, 24.7.2026, Article 1(40)(b), read on EUR-Lex"


@pytest.mark.requirement("citations-1.1")
def test_every_control_of_the_ai_act_names_what_dates_it_and_what_is_open() -> None:
    act = next(one for one in regimes_data.shipped() if one.code == "eu-ai-act")
    assert "OJ L, 2026/1744, 24.7.2026" in act.columns["source"]
    for code, control in act.controls.items():
        assert control["dated_by"], code
        assert control["confirmed"] or "2026-11-23" in control["unconfirmed"], code
    assert "Art. 1(40)(b)" in act.controls["ai-act-9-iii"]["dated_by"]
    assert "Annex III from 2027-12-02" in act.controls["ai-act-9-iii"]["unconfirmed"]
    assert "Which date holds for Art. 49(2)" in act.controls["ai-act-49-2"]["unconfirmed"]
    for regime in regimes_data.shipped():
        for code, control in regime.controls.items():
            assert control["confirmed"] == (control["unconfirmed"] == ""), code


@pytest.mark.requirement("citations-1.1")
@pytest.mark.parametrize(
    ("confirmed", "text", "faulty"), [(False, "", True), (False, "The date.", False), (True, "The date.", True)]
)
def test_a_doubt_without_words_is_refused(confirmed: bool, text: str, faulty: bool) -> None:
    raw = json.loads((regimes_data.FOLDER / "eu-ai-act.json").read_text())
    raw["controls"] = [raw["controls"][0] | {"confirmed": confirmed, "unconfirmed": text}]
    if faulty:
        with pytest.raises(regimes_data.BadRegime):
            regimes_data.read(json.dumps(raw), "x.json")
    else:
        assert regimes_data.read(json.dumps(raw), "x.json").controls


@pytest.fixture
def act(company: Company) -> Regime:
    load_regimes()
    return Regime.objects.get(code="eu-ai-act")


def control(code: str) -> Control:
    return Control.objects.get(code=code, superseded_at=None)


@pytest.mark.django_db
@pytest.mark.requirement("citations-2.1")
def test_one_reading_confirms_what_rests_on_the_same_provision_and_nothing_else(act: Regime, company: Company) -> None:
    row, today = control("ai-act-9-iii"), clock.now().date()
    actor = Actor.of(company.compliance)
    for person in (company.admin, company.lead_finance, company.auditor):
        with pytest.raises(NotAllowed):
            regimes_confirming.confirm(row.pk, READ, today, actor=Actor.of(person))
    with pytest.raises(Invalid) as refused:
        regimes_confirming.confirm(row.pk, "the law", today + timedelta(days=1), actor=actor)
    assert set(refused.value.errors) == {"source", "read_on"}
    made = regimes_confirming.confirm(row.pk, READ, today, actor=actor)
    codes = {one.control.code for one in made}
    assert {"ai-act-9-iii", "ai-act-15-iii", "ai-act-26-6-iii"} <= codes
    assert not codes & {"ai-act-9-i", "ai-act-43-iii", "ai-act-50", "ai-act-49-2"}
    assert {one.confirmed_by for one in made} == {company.compliance}
    assert events_for(row.uid).filter(action="catalogue.citations.confirmed").count() == 1
    facts = {one.code: one.confirmed for one in controls_state.control_facts(controls_state.in_force())}
    assert facts["ai-act-9-iii"]
    assert not facts["ai-act-9-i"]
    with pytest.raises(Conflict):
        regimes_confirming.confirm(row.pk, READ, today, actor=actor)
    assert CitationConfirmation.objects.count() == len(made)
    assert load_regimes() == 0


@pytest.mark.django_db
@pytest.mark.requirement("citations-2.2")
def test_a_new_revision_is_confirmed_anew(act: Regime, company: Company) -> None:
    row, actor = control("ai-act-49-2"), Actor.of(company.compliance)
    regimes_confirming.confirm(row.pk, READ, clock.now().date(), actor=actor)
    new = regimes_publishing.publish_control(row.pk, {"title": "Registration"}, "The title was long.", actor=actor)
    assert regimes_confirming.doubt_of(new) is not None
    assert CitationConfirmation.objects.get().control_id == row.pk
    with pytest.raises(Conflict):
        regimes_confirming.confirm(row.pk, READ, clock.now().date(), actor=actor)
    settled = regimes_publishing.publish_control(
        new.pk, {"confirmed": True, "unconfirmed": ""}, "Read in the journal.", actor=actor
    )
    assert regimes_confirming.doubt_of(settled) is None


@pytest.mark.django_db
@pytest.mark.requirement("citations-1.2", "citations-2.1")
def test_the_pages_say_what_is_open_and_who_closed_it(act: Regime, company: Company, query_limit: Any) -> None:
    compliance, reader = client_for(company.compliance), client_for(company.lead_finance)
    page = reverse("catalogue:regime-detail", kwargs={"regime_uid": act.uid})
    row = control("ai-act-9-iii")
    here = reverse("catalogue:control-confirm", kwargs={"control_uid": row.uid})
    with query_limit(20):
        text = compliance.get(page).content.decode()
    assert "Which date holds for Art. 49(2)" in text
    assert "Art. 1(40)(b)" in text
    first = regimes_confirming.doubt_of(row)
    assert first is not None
    assert reverse("catalogue:control-confirm", kwargs={"control_uid": first.first.uid}) in text
    assert "/confirm/" not in reader.get(page).content.decode()
    assert reader.get(here).status_code == 403
    shown = compliance.get(here).content.decode()
    assert "Risk management" in shown
    assert "Annex III from 2027-12-02" in shown
    assert compliance.post(here, {"source": "short", "read_on": "2026-11-01"}).status_code == 400
    assert compliance.post(here, {"source": READ, "read_on": "2026-11-01"}).status_code == 303
    assert f"confirmed by {company.compliance}, who read {READ} on 2026-11-01" in reader.get(page).content.decode()
    detail = reverse("catalogue:control-detail", kwargs={"control_uid": row.uid})
    assert "not confirmed" not in reader.get(detail).content.decode()
    assert compliance.get(here).status_code == 409
