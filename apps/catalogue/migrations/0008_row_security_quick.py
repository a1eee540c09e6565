"""Models that a person is asked about: found from their requests by index, with the teams read once, not row by row."""

from importlib import import_module

from django.db import migrations

# Each arm by an index; `wall_teams()` without its own select would be read from its text for every row.
ASKED = """
CREATE OR REPLACE FUNCTION commons.asked_models() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp AS $body$
  SELECT v.model_id
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
    JOIN public.catalogue_modelrequest q ON q.approval_id = seen.id
    JOIN public.catalogue_modelversion v ON v.id = q.model_version_id
   WHERE seen.team_id NOT IN (SELECT unnest(commons.wall_teams()))
$body$;
"""
# What lies in one's own teams, which answers for most rows: the other sets are made only where it does not.
OWN = """
CREATE FUNCTION commons.own_models() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $body$
  SELECT m.id FROM public.catalogue_model m WHERE m.team_id = ANY ((SELECT commons.wall_teams())::bigint[])
$body$;
REVOKE ALL ON FUNCTION commons.own_models() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.own_models() TO commons_app;
"""
# A version whose team is foreign: whether a request for a version of its model is seen, asked for this model alone.
SEES = """
CREATE OR REPLACE FUNCTION commons.sees_version(asked bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER COST 1000 SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  found_model bigint;
  found_team bigint;
BEGIN
  SELECT m.id, m.team_id INTO found_model, found_team
    FROM public.catalogue_modelversion v JOIN public.catalogue_model m ON m.id = v.model_id WHERE v.id = asked;
  IF found_model IS NULL THEN
    RETURN false;
  ELSIF found_team = ANY (commons.wall_teams()) THEN
    RETURN true;
  END IF;
  PERFORM
    FROM public.catalogue_modelversion v
    JOIN public.catalogue_modelrequest q ON q.model_version_id = v.id
    JOIN public.approvals_approvalrequest r ON r.id = q.approval_id
   WHERE v.model_id = found_model AND r.team_id <> ALL (commons.wall_teams())
     AND (r.unit_id = ANY (commons.wall_units()) OR r.requester_id = commons.wall_person()
       OR r.id IN (SELECT commons.entrusted_requests()));
  RETURN FOUND;
END $body$;
"""


def _before(migration: str, name: str) -> str:
    """Return the statement of an earlier migration that made a function."""
    made: str = getattr(import_module(f"apps.catalogue.migrations.{migration}"), name)
    return made.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0007_signing_keys"), ("approvals", "0010_row_security_quick")]
    operations = [
        migrations.RunSQL(ASKED, _before("0005_row_security", "ASKED")),
        migrations.RunSQL(OWN, "DROP FUNCTION commons.own_models()"),
        migrations.RunSQL(SEES, _before("0006_row_security_planned", "SEES")),
    ]
