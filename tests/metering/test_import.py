"""Import of usage intervals: bad rows by line, all or nothing where asked, twice the same."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.models import AuditEvent
from apps.core.actor import Actor
from apps.core.errors import Invalid, NotAllowed
from apps.metering import due, imports
from apps.metering.actions import request_hours
from apps.metering.importing import import_intervals
from apps.metering.models import HourFact, HourStatus, IngestRun, Source, UsageInterval
from apps.metering.selectors import completeness
from apps.metering.sources.base import ms
from tests.metering.world import World, utc

NOW = utc(2026, 11, 18, 9)
HEADER = "workload,namespace,gpus,flavour,start,end,utilisation\n"
GOOD = HEADER + (
    "train,finance-prod,4,a100-dc1,2026-10-01T10:10:00Z,2026-10-01T13:00:00Z,62.5\n"
    "serve,marketing-prod,2,,2026-09-30 23:30,2026-10-02,\n"
    "old,unknown-ns,1,NVIDIA-A100-SXM4-80GB,1790812800,1790816400.250,0\n"
)


def parsed(text: str, **options: Any) -> imports.Parsed:
    return imports.parse([text.encode()], now=NOW, **options)


@pytest.fixture
def empty_world(world: World) -> World:
    Source.objects.all().delete()
    return world


@pytest.mark.requirement("metering-4.1")
def test_columns_times_and_aliases() -> None:
    found = parsed(GOOD)
    assert found.errors == []
    train, serve, old = found.intervals
    assert (train.start_ms, train.end_ms) == (ms(utc(2026, 10, 1, 10, 10)), ms(utc(2026, 10, 1, 13)))
    assert (train.units, train.used_permille, serve.used_permille, old.used_permille) == (4, 625, None, 0)
    assert old.end_ms - old.start_ms == 3_600_250
    other = parsed("Job-ID,Account,Num GPUs,Start Time,End Time\nj1,acct,8,60,3660\n", epoch=utc(2017, 9, 1))
    assert other.intervals[0].start_ms == ms(utc(2017, 9, 1, 0, 1))


@pytest.mark.requirement("metering-4.1")
@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,ns,-1,,2026-10-01,2026-10-02,", "gpus must be a whole number"),
        ("a,ns,1.5,,2026-10-01,2026-10-02,", "gpus must be a whole number"),
        ("a,ns,0,,2026-10-01,2026-10-02,", "gpus must be a whole number"),
        ("a,ns,1,,2026-10-02,2026-10-01,", "end must be after start"),
        ("a,ns,1,,2026-10-02,2026-10-02,", "end must be after start"),
        ("a,ns,1,,yesterday,2026-10-02,", "start is no ISO 8601 time"),
        ("a,ns,1,,2026-10-01,2027-01-01,", "end lies in the future"),
        ("a,ns,1,,2024-10-01,2026-10-01,", "longer than 366 days"),
        ("a,ns,1,,1066-10-14,2026-10-01,", "outside the years"),
        ("a,,1,,2026-10-01,2026-10-02,", "namespace is empty"),
        (",ns,1,,2026-10-01,2026-10-02,", "workload is empty"),
        ("a,ns,1,,2026-10-01,2026-10-02,101", "utilisation must lie"),
        ("a,ns,1,,2026-10-01,2026-10-02,NaN", "utilisation must lie"),
        ("a,ns,1,,2026-10-01,2026-10-02,lots", "utilisation is no percentage"),
        ("a,ns,1", "3 fields where the header has 7"),
    ],
)
def test_bad_rows_are_named_by_line(row: str, reason: str) -> None:
    found = parsed(GOOD + row + "\n")
    assert len(found.intervals) == 3
    assert [(line, reason in text) for line, text in found.errors] == [(5, True)]


@pytest.mark.requirement("metering-4.4")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "must name the columns"),
        (b"a,b,c\n1,2,3\n", "missing: workload"),
        (b"\x00\x01\x02" * 1000, "binary data"),
        (b"workload,namespace,gpus,start,end\n\xff\xfe,ns,1,1,2\n", "not UTF-8"),
        (b"x" * 3_000_000, "more than a million bytes"),
    ],
)
def test_unusable_files_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(imports.Unusable, match=reason):
        imports.parse([data[i : i + 65536] for i in range(0, len(data), 65536)] or [b""], now=NOW)


@pytest.mark.requirement("metering-4.4")
@given(st.binary(max_size=2000))
def test_no_bytes_at_all_break_the_reader(data: bytes) -> None:
    try:
        found = imports.parse([HEADER.encode(), data], now=NOW)
    except imports.Unusable:
        return
    assert len(found.intervals) + len(found.errors) == found.rows


@pytest.mark.requirement("metering-4.4")
def test_ten_megabytes_of_garbage_write_nothing(empty_world: World) -> None:
    line = "q" * 99 + "\n"
    found = imports.parse([HEADER.encode(), *[(line * 1000).encode()] * 105], now=NOW)
    assert len(found.errors) == 105_000
    with pytest.raises(Invalid) as refused:
        import_intervals(empty_world.cluster.pk, found, actor=Actor.system("test"))
    messages = refused.value.errors["file"]
    assert messages[0] == "No row can be imported."
    assert len(messages) == 52
    assert messages[-1] == "… and 104950 more."
    assert not Source.objects.exists()
    assert not IngestRun.objects.exists()


def run(world: World, text: str, **options: Any) -> IngestRun:
    result = import_intervals(world.cluster.pk, parsed(text), actor=Actor.system("test"), **options)
    while due.ingest_due():
        pass
    return result


@pytest.mark.requirement("metering-4.1", "metering-4.3")
def test_import_meters_and_twice_is_the_same(empty_world: World, company: Any) -> None:
    done = run(empty_world, GOOD)
    assert done.report["taken"] == 3
    total = sum(HourFact.objects.values_list("allocated_gpu_ms", flat=True))
    assert total == 4 * 10_200_000 + 2 * 88_200_000 + 3_600_250
    by_team = set(HourFact.objects.values_list("workload_name", "team_name", "used_source"))
    assert by_team == {("train", "Finance", "imported"), ("serve", "Marketing", ""), ("old", "", "imported")}
    before = list(HourFact.objects.order_by("hour", "uid").values_list("uid", "allocated_gpu_ms", "revision"))
    run(empty_world, GOOD)
    after = list(HourFact.objects.order_by("hour", "uid").values_list("uid", "allocated_gpu_ms", "revision"))
    assert after == before
    assert UsageInterval.objects.count() == 3
    assert set(HourStatus.objects.values_list("state", "revision")) == {("final", 1)}
    assert AuditEvent.objects.filter(action="metering.usage.imported").count() == 2


@pytest.mark.requirement("metering-4.3")
def test_a_corrected_row_replaces_the_earlier_one(empty_world: World) -> None:
    run(empty_world, GOOD)
    run(empty_world, GOOD.replace("2026-10-01T13:00:00Z", "2026-10-01T12:00:00Z"))
    train = HourFact.objects.filter(workload_name="train")
    assert sum(train.values_list("allocated_gpu_ms", flat=True)) == 4 * 6_600_000


@pytest.mark.requirement("metering-4.1")
def test_equal_rows_are_kept_apart(empty_world: World) -> None:
    row = "same,finance-prod,1,,2026-10-01T00:00:00,2026-10-01T01:00:00,\n"
    run(empty_world, HEADER + row + row)
    assert sum(HourFact.objects.values_list("allocated_gpu_ms", flat=True)) == 2 * 3_600_000


@pytest.mark.requirement("metering-4.2")
def test_strict_refuses_the_whole_file(empty_world: World) -> None:
    text = GOOD + "bad,ns,x,,1,2,\n" + "wrong,ns,1,h900,2026-10-01,2026-10-02,\n"
    with pytest.raises(Invalid) as refused:
        run(empty_world, text, strict=True)
    assert any("Line 5: gpus" in line for line in refused.value.errors["file"])
    assert any("Line 6: “h900” is no flavour" in line for line in refused.value.errors["file"])
    assert not UsageInterval.objects.exists()
    done = run(empty_world, text)
    assert (done.status, done.report["taken"], done.report["refused"]) == ("partial", 3, 2)


@pytest.mark.requirement("metering-2.7")
def test_import_does_not_overrule_another_source(world: World) -> None:
    with pytest.raises(Invalid, match="source of record"):
        run(world, GOOD)


def test_owner_given_with_the_import(empty_world: World, company: Any) -> None:
    with pytest.raises(Invalid, match="no team with the short name nobody"):
        run(empty_world, GOOD, team_map={"unknown-ns": "nobody"})
    run(empty_world, GOOD, team_map={"unknown-ns": "research"})
    assert HourFact.objects.get(workload_name="old", hour=utc(2026, 10, 1)).team_name == "Research"


@pytest.mark.requirement("metering-5.1")
def test_import_takes_the_permission(empty_world: World, company: Any) -> None:
    with pytest.raises(NotAllowed):
        import_intervals(empty_world.cluster.pk, parsed(GOOD), actor=Actor.of(company.vp))


@pytest.mark.requirement("metering-4.1", "metering-4.2")
def test_command(empty_world: World, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_text(GOOD + "bad,ns,x,,1,2,\n")
    out, err = StringIO(), StringIO()
    call_command("import_usage", str(file), cluster="dc1", dry_run=True, stdout=out, stderr=err)
    assert "3 rows could be imported, 1 not" in out.getvalue()
    assert not UsageInterval.objects.exists()
    with pytest.raises(CommandError, match="nothing was imported"):
        call_command("import_usage", str(file), cluster="dc1", strict=True, stdout=out, stderr=err)
    call_command("import_usage", str(file), cluster="dc1", stdout=out, stderr=err)
    assert "Imported 3 of 4 rows" in out.getvalue()
    assert "Line 5: gpus must be a whole number" in err.getvalue()
    assert (tmp_path / "usage.csv.errors.csv").read_text().startswith("line,reason")
    assert HourFact.objects.count() == 3 + 25 + 2
    with pytest.raises(CommandError, match="There is no cluster 'nope' \\(known: dc1\\)"):
        call_command("import_usage", str(file), cluster="nope", stdout=out, stderr=err)
    with pytest.raises(CommandError, match="--team-map takes"):
        call_command("import_usage", str(file), cluster="dc1", team_map=["a"], stdout=out, stderr=err)


def test_a_gap_between_two_files_is_missing_not_zero(empty_world: World) -> None:
    run(empty_world, HEADER + "a,finance-prod,1,,2026-10-01T00:00:00,2026-10-01T02:00:00,\n")
    run(empty_world, HEADER + "b,finance-prod,1,,2026-10-01T05:00:00,2026-10-01T06:00:00,\n")
    found = completeness(empty_world.cluster.pk, utc(2026, 10, 1), utc(2026, 10, 1) + timedelta(days=1))
    assert (found.expected, found.metered, found.missing) == (6, 3, 3)
    request_hours(empty_world.cluster.pk, utc(2026, 10, 1), utc(2026, 10, 1, 6))
    due.ingest_due()
    found = completeness(empty_world.cluster.pk, utc(2026, 10, 1), utc(2026, 10, 2))
    assert (found.metered, found.missing) == (3, 3)
