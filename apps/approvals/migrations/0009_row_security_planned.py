"""What hangs on a request asks one function for it: the planner need not plan the request's policy for each of them.

A page of a decider reads six of these tables in one statement, and planning it took longer than answering it.
"""

from django.db import migrations

# As owner; it says what the policy of requests says.
SEES = """
CREATE FUNCTION commons.sees_request(request bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  asked record;
BEGIN
  SELECT r.team_id, r.unit_id, r.requester_id INTO asked FROM public.approvals_approvalrequest r WHERE r.id = request;
  RETURN FOUND AND (
    coalesce(asked.team_id = ANY (commons.wall_teams()), false) OR asked.unit_id = ANY (commons.wall_units())
    OR asked.requester_id = commons.wall_person() OR request IN (SELECT commons.entrusted_requests())
  );
END $body$;
REVOKE ALL ON FUNCTION commons.sees_request(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.sees_request(bigint) TO commons_app;
"""
AFTER = "commons.sees_request(request_id)"
BEFORE = "EXISTS (SELECT FROM public.approvals_approvalrequest r WHERE r.id = request_id)"
NAMES = ("stage", "decision", "grant", "comment", "emergencyreview", "standardloss")


def _policy(name: str, inside: str) -> str:
    return f"ALTER POLICY tenant_wall ON public.approvals_{name} USING ((SELECT commons.wall_open()) OR {inside})"


class Migration(migrations.Migration):
    dependencies = [("approvals", "0008_row_security")]
    operations = [
        migrations.RunSQL(SEES, "DROP FUNCTION commons.sees_request(bigint)"),
        *(
            migrations.RunSQL(_policy(name, "commons.sees_request(request_id)"), _policy(name, BEFORE))
            for name in NAMES
        ),
    ]
