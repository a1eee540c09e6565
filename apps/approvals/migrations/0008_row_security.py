"""Requests and what hangs on them behind the wall: the receiving team, the paying unit, the requester, stand-ins."""

from django.db import migrations

from apps.core.row_security import table

# As owner, past the wall of the stages it reads. The giver's own grants decide: a delegation gives nothing by itself.
ENTRUSTED = """
CREATE FUNCTION commons.entrusted_requests() RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  person bigint := nullif(current_setting('commons.user_id', true), '')::bigint;
  at timestamptz := coalesce(nullif(current_setting('commons.at', true), '')::timestamptz, statement_timestamp());
BEGIN
  IF NOT EXISTS (SELECT FROM public.approvals_delegation d WHERE d.delegate_id = person AND d.valid @> at) THEN
    RETURN;
  END IF;
  RETURN QUERY
    SELECT r.id
      FROM public.approvals_delegation d
      JOIN public.accounts_user giver ON giver.id = d.giver_id AND giver.is_active
      JOIN public.accounts_user holder ON holder.id = d.delegate_id AND holder.is_active
      JOIN public.teams_rolegrant g ON g.user_id = d.giver_id AND g.role = d.role AND g.team_id IS NULL
      JOIN public.approvals_stage s ON s.role = d.role
      JOIN public.approvals_approvalrequest r ON r.id = s.request_id
      JOIN public.teams_unit paying ON paying.id = r.unit_id
     WHERE d.delegate_id = person AND d.valid @> at AND (d.revoked_at IS NULL OR d.revoked_at > at)
       AND g.revoked_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > at)
       AND (g.starts_at IS NULL OR g.starts_at <= at)
       AND (g.unit_id IS NULL
         OR EXISTS (SELECT FROM public.teams_unit n WHERE n.id = s.unit_id AND g.unit_id = ANY (n.path)))
       AND (d.unit_id IS NULL OR d.unit_id = ANY (paying.path));
END $body$;
REVOKE ALL ON FUNCTION commons.entrusted_requests() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.entrusted_requests() TO commons_app;
"""
REQUEST = """(
  team_id IN (SELECT unnest(commons.wall_teams())) OR unit_id IN (SELECT unnest(commons.wall_units()))
  OR requester_id = (SELECT commons.wall_person()) OR id IN (SELECT commons.entrusted_requests())
)"""
#: The request's own policy decides, since this reads it as the same role.
OF_REQUEST = "EXISTS (SELECT FROM public.approvals_approvalrequest r WHERE r.id = request_id)"


class Migration(migrations.Migration):
    dependencies = [("approvals", "0007_grant_indexes"), ("teams", "0005_row_security")]
    operations = [
        migrations.RunSQL(ENTRUSTED, "DROP FUNCTION commons.entrusted_requests()"),
        table("approvals_approvalrequest", REQUEST),
        *(
            table(f"approvals_{name}", OF_REQUEST)
            for name in ("stage", "decision", "grant", "comment", "emergencyreview", "standardloss")
        ),
    ]
