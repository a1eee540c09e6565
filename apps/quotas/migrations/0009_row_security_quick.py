"""Quota and change requests: what is one's own by a set, and foreign rows by the set of requests seen, not row by row."""

from django.db import migrations

OWN = """
CREATE FUNCTION commons.own_workspaces() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $body$
  SELECT w.id FROM public.quotas_workspace w WHERE w.team_id = ANY ((SELECT commons.wall_teams())::bigint[])
$body$;
REVOKE ALL ON FUNCTION commons.own_workspaces() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.own_workspaces() TO commons_app;
"""
RECEIVER = "receiver_id IN (SELECT unnest(commons.wall_teams()))"
WORKSPACE_BEFORE = """workspace_id IN (SELECT w.id FROM public.quotas_workspace w
  WHERE w.team_id = ANY ((SELECT commons.wall_teams())::bigint[]))"""
APPROVED_BEFORE = "commons.sees_request(approval_id)"
WORKSPACE = "workspace_id IN (SELECT commons.own_workspaces())"
APPROVED = "approval_id IN (SELECT commons.seen_requests())"


def _policy(name: str, inside: str) -> str:
    return f"ALTER POLICY tenant_wall ON public.quotas_{name} USING ((SELECT commons.wall_open()) OR {inside})"


class Migration(migrations.Migration):
    dependencies = [("quotas", "0008_row_security_planned"), ("approvals", "0010_row_security_quick")]
    operations = [
        migrations.RunSQL(OWN, "DROP FUNCTION commons.own_workspaces()"),
        migrations.RunSQL(
            _policy("quotarequest", f"({WORKSPACE} OR {APPROVED})"),
            _policy("quotarequest", f"({WORKSPACE_BEFORE} OR {APPROVED_BEFORE})"),
        ),
        migrations.RunSQL(
            _policy("changerequest", f"({WORKSPACE} OR {RECEIVER} OR {APPROVED})"),
            _policy("changerequest", f"({WORKSPACE_BEFORE} OR {RECEIVER} OR {APPROVED_BEFORE})"),
        ),
    ]
