"""Models, versions, endpoints and releases by sets of keys, the cheapest first; one policy a table.

Two policies of one table were asked in the order of their names: what models a workspace serves was looked up even for
those who see everything. A set that is a function is planned once, and small in the planner's eyes: it no longer
avoids reading versions by index for the price of making the set.
"""

from importlib import import_module

from django.db import migrations

RELEASED = """
CREATE OR REPLACE FUNCTION commons.released_models() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp AS $body$
  SELECT e.model_id
    FROM commons.own_workspaces() AS own (id)
    JOIN public.deployments_endpoint e ON e.workspace_id = own.id
   UNION ALL
  SELECT e.model_id
    FROM commons.asked_endpoints() AS asked (id)
    JOIN public.deployments_endpoint e ON e.id = asked.id
$body$;
"""
ASKED = """
CREATE OR REPLACE FUNCTION commons.asked_endpoints() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp AS $body$
  SELECT d.endpoint_id
    FROM (
      SELECT r.id, r.team_id FROM public.approvals_approvalrequest r
       WHERE r.unit_id = ANY ((SELECT commons.wall_units())::bigint[])
      UNION ALL
      SELECT r.id, r.team_id FROM public.approvals_approvalrequest r
       WHERE r.requester_id = (SELECT commons.wall_person())
      UNION ALL
      SELECT r.id, r.team_id FROM public.approvals_approvalrequest r
       WHERE r.id IN (SELECT commons.entrusted_requests())
    ) seen
    JOIN public.deployments_release d ON d.approval_id = seen.id
   WHERE seen.team_id NOT IN (SELECT unnest(commons.wall_teams()))
$body$;
"""
OWN = """
CREATE FUNCTION commons.own_endpoints() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $body$
  SELECT e.id FROM commons.own_workspaces() AS own (id) JOIN public.deployments_endpoint e ON e.workspace_id = own.id
$body$;
REVOKE ALL ON FUNCTION commons.own_endpoints() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.own_endpoints() TO commons_app;
"""
OTHERWISE = "{0} IN (SELECT commons.released_models()) OR {0} IN (SELECT commons.asked_models())"
MODEL = "(team_id IN (SELECT unnest(commons.wall_teams())) OR " + OTHERWISE.format("id") + ")"
OF_MODEL = "(model_id IN (SELECT commons.own_models()) OR " + OTHERWISE.format("model_id") + ")"
ENDPOINT = "(workspace_id IN (SELECT commons.own_workspaces()) OR id IN (SELECT commons.asked_endpoints()))"
OF_ENDPOINT = "(endpoint_id IN (SELECT commons.own_endpoints()) OR endpoint_id IN (SELECT commons.asked_endpoints()))"

_catalogue = import_module("apps.catalogue.migrations.0005_row_security")
_first = import_module("apps.deployments.migrations.0004_row_security")
_second = import_module("apps.deployments.migrations.0005_row_security_asked")
_ASKED_BEFORE = _first.ASKED[: _first.ASKED.index("CREATE FUNCTION commons.released_models")].replace(
    "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"
)


def _policy(name: str, inside: str) -> str:
    return f"ALTER POLICY tenant_wall ON public.{name} USING ((SELECT commons.wall_open()) OR {inside})"


class Migration(migrations.Migration):
    dependencies = [
        ("deployments", "0005_row_security_asked"),
        ("catalogue", "0008_row_security_quick"),
        ("quotas", "0009_row_security_quick"),
    ]
    operations = [
        migrations.RunSQL(ASKED, _ASKED_BEFORE),
        migrations.RunSQL(RELEASED, _second._HEAD + _second._ASKED),
        migrations.RunSQL(OWN, "DROP FUNCTION commons.own_endpoints()"),
        migrations.RunSQL(_policy("catalogue_model", MODEL), _policy("catalogue_model", _catalogue.MODEL)),
        migrations.RunSQL("DROP POLICY tenant_wall_released ON public.catalogue_model", _first.RELEASED),
        *(
            migrations.RunSQL(_policy(f"catalogue_{name}", OF_MODEL), _policy(f"catalogue_{name}", _catalogue.OF_MODEL))
            for name in ("modelversion", "cardrevision", "evidence")
        ),
        migrations.RunSQL(_policy("deployments_endpoint", ENDPOINT), _policy("deployments_endpoint", _first.ENDPOINT)),
        migrations.RunSQL(
            _policy("deployments_release", OF_ENDPOINT), _policy("deployments_release", _first.OF_ENDPOINT)
        ),
    ]
