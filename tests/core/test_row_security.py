"""The second wall itself: who passes, what gives it up, and that nobody takes it down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, ProgrammingError, connection, transaction

from apps.accounts.models import User
from apps.approvals.models import ApprovalRequest, Delegation, Grant, Policy, PolicyVersion, Stage
from apps.catalogue.models import Model, ModelRequest, ModelVersion
from apps.clusters.models import Cluster
from apps.core import clock, row_security
from apps.core.row_security import close_by_default, lifted, walled
from apps.deployments.models import Endpoint
from apps.quotas.models import Workspace
from apps.teams import scope
from apps.teams.choices import PERMISSIONS, Role
from apps.teams.models import RoleGrant
from portal import checks
from tests.catalogue.world import make_version
from tests.factories import Company, grant, make_member, make_team, make_user

pytestmark = pytest.mark.django_db
#: Every table behind the wall; a new one is added here and in specs/row-security/design.md.
TABLES = {
    "approvals_approvalrequest", "approvals_stage", "approvals_decision", "approvals_grant", "approvals_comment",
    "approvals_emergencyreview", "approvals_standardloss", "quotas_quotarequest", "quotas_changerequest",
    "costs_statement", "costs_statementline", "costs_statementfile", "costs_runningstatement", "catalogue_model",
    "catalogue_modelversion", "catalogue_cardrevision", "catalogue_evidence", "catalogue_modelrequest",
    "catalogue_versionexception", "catalogue_recertification", "catalogue_storedcopy", "costs_whatifrun",
    "deployments_endpoint", "deployments_release",
}  # fmt: skip


@pytest.fixture
def models(company: Company) -> dict[str, Model]:
    """A model of each team."""
    return {
        slug: Model.objects.create(slug=f"model-of-{slug}", name=f"Model of {slug}", team=team, purpose="Tests")
        for slug, team in company.teams.items()
    }


def seen(user_id: int | None) -> set[str]:
    with walled(user_id):
        return set(Model.objects.values_list("slug", flat=True))


def one(sql: str, *params: object) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


# -- whose rows -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("row-security-1.3", "row-security-2.1", "row-security-2.2")
def test_a_person_sees_the_rows_of_their_tenants_and_nobody_sees_none(
    company: Company, models: dict[str, Model]
) -> None:
    assert seen(company.lead_finance.pk) == seen(company.member_finance.pk) == {"model-of-finance"}
    assert seen(company.vp.pk) == seen(company.auditor.pk) == {one.slug for one in models.values()}
    assert seen(company.vp_other.pk) == set()
    assert seen(None) == seen(row_security.NOBODY) == set()
    assert Model.objects.count() == 3, "the portal itself has no wall"


@pytest.mark.requirement("row-security-1.3")
@pytest.mark.parametrize(
    "how", ["expired", "revoked", "later", "inactive", "left", "unit below", "unit above", "both", "ends later"]
)
def test_the_wall_agrees_with_the_scope_resolver(company: Company, how: str) -> None:
    """Two independent readings of the same rows: SQL of the wall, Python of the first one."""
    at, person = clock.now(), make_user()
    day = timedelta(days=1)
    deep = make_team("Deep", company.unit)
    if how == "expired":
        grant(person, Role.TEAM_LEAD, team=company.finance_team, expires_at=at - day)
    elif how == "revoked":
        grant(person, Role.TEAM_LEAD, team=company.finance_team, revoked_at=at - day)
    elif how == "later":
        given = grant(person, Role.TEAM_LEAD, team=company.finance_team)
        RoleGrant.objects.filter(pk=given.pk).update(starts_at=at + day)
    elif how == "inactive":
        grant(person, Role.PLATFORM_ADMIN)
        make_member(person, deep)
        person.is_active = False
        person.save(update_fields=["is_active"])
    elif how == "left":
        make_member(person, company.finance_team, since=at - 9 * day, until=at - day)
    elif how == "unit below":
        grant(person, Role.UNIT_OWNER, unit=company.unit)
    elif how == "unit above":
        grant(person, Role.UNIT_OWNER, unit=company.root)
    elif how == "both":
        grant(person, Role.UNIT_OWNER, unit=company.other_unit)
        make_member(person, deep)
    else:
        grant(person, Role.TEAM_LEAD, team=company.finance_team, expires_at=at + day)
        make_member(person, deep, since=at - day, until=at + day)
    held = scope.of(person)
    teams = set(company.finance_team.__class__.objects.filter(held.team_filter("teams.team.view", field="")))
    with walled(person.pk):
        assert set(one("SELECT commons.wall_teams()")) == {team.pk for team in teams}
        assert set(one("SELECT commons.wall_units()")) == {unit.pk for unit in held.units_with("teams.team.view")}
        assert one("SELECT commons.wall_open()") is False


@pytest.mark.requirement("row-security-1.3")
def test_time_is_the_portals(company: Company, models: dict[str, Model]) -> None:
    person, at = make_user(), clock.now()
    grant(person, Role.TEAM_LEAD, team=company.finance_team, expires_at=at + timedelta(days=900))
    with clock.frozen(at + timedelta(days=899)):
        assert seen(person.pk) == {"model-of-finance"}
    with clock.frozen(at + timedelta(days=901)):
        assert seen(person.pk) == set()


@pytest.fixture
def request_for_finance(company: Company, models: dict[str, Model]) -> ApprovalRequest:
    """The finance team's version asked for approval, which its unit pays and somebody from marketing requested."""
    policy = Policy.objects.create(slug="walls", name="Walls", subject_type="tests.wall")
    version = PolicyVersion.objects.create(policy=policy, number=1, body={}, digest="0" * 64, published_at=clock.now())
    request = ApprovalRequest.objects.create(
        subject_type="tests.wall", subject_uid=policy.uid, subject_digest="0" * 64, title="Card fraud scoring",
        policy_version=version, requester=company.lead_marketing, team=company.finance_team, unit=company.unit,
        submitted_at=clock.now(),
    )  # fmt: skip
    Stage.objects.create(request=request, ordinal=0, name="Owner", role="unit_owner", unit=company.unit, rule="always")
    sealed = make_version(models["finance"], company.lead_finance)
    ModelRequest.objects.create(
        model_version=sealed, scope={}, reason="To production.", requester=company.lead_marketing, approval=request
    )
    Grant.objects.create(request=request, subject_digest="0" * 64, scope={"manifest": "1" * 64}, not_before=clock.now())
    return request


def behind(user: User) -> tuple[int, int, int, int, int]:
    """How many requests, stages, grants, versions of finance and requests for them a person's wall leaves."""
    with walled(user.pk):
        versions = ModelVersion.objects.filter(model__slug="model-of-finance")
        return (
            ApprovalRequest.objects.count(), Stage.objects.count(), Grant.objects.count(), versions.count(),
            ModelRequest.objects.count(),
        )  # fmt: skip


ALL_OF_IT, NOTHING = (1, 1, 1, 1, 1), (0, 0, 0, 0, 0)


@pytest.mark.requirement("row-security-1.4")
def test_who_is_asked_or_asks_sees_the_request_and_what_it_is_about(
    company: Company, request_for_finance: ApprovalRequest
) -> None:
    assert behind(company.lead_marketing) == ALL_OF_IT, "the requester"
    assert behind(company.lead_research) == behind(company.vp_other) == NOTHING
    ApprovalRequest.objects.update(unit=company.other_unit)
    assert behind(company.vp_other) == ALL_OF_IT, "the owner of the unit that pays"


@pytest.mark.requirement("row-security-1.4")
def test_who_stands_in_sees_what_they_are_asked(company: Company, request_for_finance: ApprovalRequest) -> None:
    at, day = clock.now(), timedelta(days=1)
    standing_in = Delegation.objects.create(
        giver=company.vp, delegate=company.lead_research, role="unit_owner", valid=(at - day, at + day),
        reason="Leave", created_by=company.vp,
    )  # fmt: skip
    assert behind(company.lead_research) == ALL_OF_IT
    for change in (
        {"valid": (at - 2 * day, at - day)},
        {"revoked_at": at},
        {"unit": company.other_unit},
        {"role": "finance"},
    ):
        with transaction.atomic():
            Delegation.objects.filter(pk=standing_in.pk).update(**change)
            assert behind(company.lead_research) == NOTHING, change
            transaction.set_rollback(True)
    RoleGrant.objects.filter(user=company.vp).update(revoked_at=at)
    assert behind(company.lead_research) == NOTHING, "what the giver lost cannot be passed on"


@pytest.mark.requirement("row-security-1.3", "row-security-1.4")
def test_what_a_grant_says_of_its_request_is_what_the_request_says(
    company: Company, request_for_finance: ApprovalRequest
) -> None:
    """The wall compares columns of the grant: nobody who writes one makes it somebody else's."""
    copied = ("subject_type", "team", "unit", "requester")
    Grant.objects.update(team=company.research_team, requester=company.lead_research, subject_type="tests.other")
    row = Grant.objects.get()
    assert [getattr(row, name) for name in copied] == [getattr(request_for_finance, name) for name in copied]
    assert row.manifest == "1" * 64
    assert behind(company.lead_finance) == ALL_OF_IT
    assert behind(company.lead_research) == NOTHING
    ApprovalRequest.objects.update(team=company.research_team, requester=company.lead_research)
    row.refresh_from_db()
    assert (row.team, row.requester) == (company.research_team, company.lead_research)
    with walled(company.lead_research.pk):
        assert Grant.objects.get() == row
    with walled(company.lead_marketing.pk):
        assert not Grant.objects.exists()


@pytest.mark.requirement("row-security-1.4")
def test_a_team_sees_the_models_that_serve_in_its_workspaces(company: Company, models: dict[str, Model]) -> None:
    cluster = Cluster.objects.create(name="Atlas", slug="atlas", api_url="https://atlas.example.com")
    space = Workspace.objects.create(
        team=company.marketing_team, cluster=cluster, environment="production", namespace="marketing-production"
    )
    Endpoint.objects.create(workspace=space, name="scores", model=models["finance"])
    assert seen(company.lead_marketing.pk) == {"model-of-marketing", "model-of-finance"}
    assert seen(company.lead_research.pk) == {"model-of-research"}
    with walled(company.lead_finance.pk):
        assert Endpoint.objects.count() == 0, "whose model it is does not say whose endpoint"


@pytest.mark.requirement("row-security-1.5")
def test_every_role_may_view_what_the_wall_opens() -> None:
    for role, held in PERMISSIONS.items():
        assert {
            "teams.team.view", "quotas.request.view", "costs.statement.view", "catalogue.model.view",
            "deployments.endpoint.view",
        } <= held, f"{role} opens a tenant in SQL without the right to view it"  # fmt: skip


@pytest.mark.requirement("row-security-1.2")
def test_a_foreign_row_can_be_neither_written_nor_changed(company: Company, models: dict[str, Model]) -> None:
    with walled(company.lead_marketing.pk):
        foreign = Model.objects.filter(team=company.finance_team)
        assert foreign.update(name="Taken") == 0
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            Model.objects.create(slug="planted", name="Planted", team=company.finance_team, purpose="Tests")
        own = models["marketing"]
        own.team = company.finance_team
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            own.save(update_fields=["team"])
    models["finance"].refresh_from_db()
    assert models["finance"].name == "Model of finance"


# -- raising, lifting, giving back ----------------------------------------------------------------------------------


@pytest.mark.requirement("row-security-2.3", "row-security-2.4")
def test_a_token_names_the_person_on_the_way_and_the_end_takes_everything_back(
    company: Company, models: dict[str, Model]
) -> None:
    def request() -> None:
        with walled(None):
            assert Model.objects.count() == 0
            row_security.become(company.lead_finance.pk)
            assert Model.objects.count() == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        request()
    assert row_security.person() is None
    assert Model.objects.count() == 3
    row_security.become(company.lead_finance.pk)
    assert Model.objects.count() == 3, "outside of a request nobody is named"


@pytest.mark.requirement("row-security-2.5")
def test_lifting_ends_with_the_block(company: Company, models: dict[str, Model]) -> None:
    with walled(company.lead_finance.pk):
        with lifted("a sum"):
            assert Model.objects.count() == 3
            with lifted("within it another"):
                pass
            assert Model.objects.count() == 3, "the inner block gives nothing back that the outer one took"
        assert Model.objects.count() == 1
        with pytest.raises(RuntimeError), lifted("a sum"):
            raise RuntimeError
        assert Model.objects.count() == 1
        with pytest.raises(DatabaseError), transaction.atomic(), lifted("a sum"):
            one("SELECT 1/0")
        assert Model.objects.count() == 1
        with pytest.raises(DatabaseError), lifted("a sum"), transaction.atomic():
            one("SELECT 1/0")
        assert Model.objects.count() == 1
        with pytest.raises(ValueError, match="why"), lifted(" "):
            raise AssertionError
    assert Model.objects.count() == 3


@pytest.mark.requirement("row-security-2.1", "row-security-2.4", "row-security-2.5")
@pytest.mark.django_db(transaction=True)
def test_outside_of_transactions_and_on_new_connections(company: Company, models: dict[str, Model]) -> None:
    with walled(company.lead_finance.pk):
        assert Model.objects.count() == 1
        with lifted("a sum"):
            with transaction.atomic():
                assert Model.objects.count() == 3
            assert Model.objects.count() == 3
        assert Model.objects.count() == 1
        with transaction.atomic():
            with lifted("a sum"):
                assert Model.objects.count() == 3
            assert Model.objects.count() == 1
        connection.close()
        assert Model.objects.count() == 1, "a connection opened on the way has the wall"
    assert Model.objects.count() == 3
    with pytest.raises(DatabaseError), transaction.atomic(), walled(company.lead_finance.pk):
        one("SELECT 1/0")
    assert Model.objects.count() == 3, "a transaction that failed takes its wall along"


@contextmanager
def web_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_security, "_outside", None)
        close_by_default()
        connection.close()
        yield
    connection.close()


@pytest.mark.requirement("row-security-2.1")
@pytest.mark.django_db(transaction=True)
def test_a_web_server_works_for_nobody_outside_of_requests(company: Company, models: dict[str, Model]) -> None:
    with web_server():
        assert Model.objects.count() == 0
        with walled(company.lead_finance.pk):
            assert Model.objects.count() == 1
        assert Model.objects.count() == 0
    assert Model.objects.count() == 3


@pytest.mark.requirement("row-security-2.1")
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_cannot_be_walled_is_not_used(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(target: Any) -> None:
        raise DatabaseError("no such function")

    with walled(company.lead_finance.pk):
        connection.close()
        with monkeypatch.context() as patch:
            patch.setattr(row_security, "_apply", fails)
            with pytest.raises(DatabaseError):
                Model.objects.count()
            assert connection.connection is None


# -- nobody takes it down -------------------------------------------------------------------------------------------


@pytest.fixture
def plain(company: Company, models: dict[str, Model]) -> Iterator[None]:
    """The run-time role as it is logged in, with the wall of a lead; put back at the end of the test's transaction."""
    with walled(company.lead_finance.pk):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE NONE")
            cursor.execute("SET LOCAL SESSION AUTHORIZATION commons_app")
        yield


@pytest.mark.requirement("row-security-3.1")
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE catalogue_model DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE catalogue_model OWNER TO commons_app",
        "ALTER TABLE catalogue_model NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY tenant_wall ON catalogue_model",
        "ALTER POLICY tenant_wall ON catalogue_model USING (true)",
        "CREATE POLICY open ON catalogue_model USING (true)",
        "CREATE OR REPLACE FUNCTION commons.wall_open() RETURNS boolean LANGUAGE sql RETURN true",
        "CREATE FUNCTION commons.mine() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " RETURN (SELECT count(*) FROM public.catalogue_model)",
        "DROP FUNCTION commons.raise_wall(bigint, timestamptz)",
        "CREATE VIEW everything AS SELECT * FROM catalogue_model",
        "ALTER ROLE commons_app BYPASSRLS",
        "SET ROLE commons_owner",
        "TRUNCATE catalogue_model CASCADE",
    ],
)
def test_the_run_time_role_is_refused(plain: None, statement: str) -> None:
    with pytest.raises(DatabaseError) as refused, transaction.atomic():
        one(statement)
    cause = refused.value.__cause__
    assert isinstance(cause, psycopg.errors.InsufficientPrivilege | psycopg.errors.InvalidParameterValue), cause


@pytest.mark.requirement("row-security-3.1")
def test_switching_row_security_off_shows_an_error_not_rows(plain: None) -> None:
    one("SET LOCAL row_security = off")
    with pytest.raises(DatabaseError, match="row-level security"), transaction.atomic():
        Model.objects.count()
    one("SET LOCAL row_security = on")
    assert Model.objects.count() == 1


@pytest.mark.requirement("row-security-3.1")
def test_a_note_that_is_no_list_of_keys_shows_an_error_not_rows(company: Company, models: dict[str, Model]) -> None:
    with walled(company.lead_finance.pk):
        one("SELECT set_config('commons.wall', '{1,x}', true)")
        with pytest.raises(DatabaseError), transaction.atomic():
            Model.objects.count()
        one("SELECT set_config('commons.wall', 'nonsense', true)")
        assert Model.objects.count() == 0


@pytest.mark.requirement("row-security-1.5", "row-security-3.2")
def test_the_tables_behind_the_wall() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname, c.relrowsecurity, c.relowner::regrole::text FROM pg_policy p"
            " JOIN pg_class c ON c.oid = p.polrelid WHERE p.polname = %s",
            [row_security.POLICY],
        )
        found = cursor.fetchall()
    assert {name for name, _, _ in found} == TABLES
    assert {(on, owner) for _, on, owner in found} == {(True, "commons_owner")}


@pytest.mark.requirement("row-security-3.2")
@pytest.mark.parametrize(
    ("done", "named"),
    [
        ("ALTER TABLE public.costs_statement DISABLE ROW LEVEL SECURITY", "E210"),
        ("ALTER ROLE commons_app BYPASSRLS", "E203"),
        ("ALTER TABLE public.costs_statement OWNER TO commons_app", "E209"),
    ],
)
def test_a_wall_that_is_down_or_useless_is_named(done: str, named: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL ROLE NONE")
        cursor.execute(done)
        cursor.execute("SET LOCAL SESSION AUTHORIZATION commons_app")
    assert [number for number, _, _ in checks.database_problems()] == [named]
