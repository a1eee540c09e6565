"""Endpoints and releases behind the wall: the workspace's team, and whoever sees the release's approval."""

from django.db import migrations

from apps.core.row_security import table

# As owner, past the walls of what they read: policies that read one another would go round in circles.
ASKED = """
CREATE FUNCTION commons.asked_endpoints() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
  SELECT d.endpoint_id
    FROM public.approvals_approvalrequest r
    JOIN public.deployments_release d ON d.approval_id = r.id
   WHERE r.team_id <> ALL (commons.wall_teams())
     AND (r.unit_id = ANY (commons.wall_units()) OR r.requester_id = commons.wall_person()
       OR r.id IN (SELECT commons.entrusted_requests()))
$body$;
CREATE FUNCTION commons.released_models() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
  SELECT e.model_id
    FROM public.deployments_endpoint e
    JOIN public.quotas_workspace w ON w.id = e.workspace_id
   WHERE w.team_id = ANY (commons.wall_teams())
$body$;
REVOKE ALL ON FUNCTION commons.asked_endpoints(), commons.released_models() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.asked_endpoints(), commons.released_models() TO commons_app;
"""
# Policies of one table are alternatives. A model that another team serves in its workspace is no secret there.
RELEASED = """CREATE POLICY tenant_wall_released ON public.catalogue_model
  USING (id IN (SELECT commons.released_models()))"""
ENDPOINT = """(
  EXISTS (SELECT FROM public.quotas_workspace w
    WHERE w.id = workspace_id AND w.team_id IN (SELECT unnest(commons.wall_teams())))
  OR id IN (SELECT commons.asked_endpoints())
)"""
OF_ENDPOINT = "EXISTS (SELECT FROM public.deployments_endpoint e WHERE e.id = endpoint_id)"


class Migration(migrations.Migration):
    dependencies = [("deployments", "0003_step_kinds"), ("catalogue", "0005_row_security")]
    operations = [
        migrations.RunSQL(ASKED, "DROP FUNCTION commons.asked_endpoints(), commons.released_models()"),
        migrations.RunSQL(RELEASED, "DROP POLICY tenant_wall_released ON public.catalogue_model"),
        table("deployments_endpoint", ENDPOINT),
        table("deployments_release", OF_ENDPOINT),
    ]
