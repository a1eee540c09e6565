"""Requests and exceptions ask one function for their version: planning its policies took longer than answering."""

from django.db import migrations

# As owner; it says what the policies of versions and models say of the owning team and of requests for the version.
SEES = """
CREATE FUNCTION commons.sees_version(asked bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  found_model bigint;
  found_team bigint;
BEGIN
  SELECT m.id, m.team_id INTO found_model, found_team
    FROM public.catalogue_modelversion v JOIN public.catalogue_model m ON m.id = v.model_id WHERE v.id = asked;
  RETURN FOUND AND (
    found_team = ANY (commons.wall_teams()) OR found_model IN (SELECT commons.asked_models())
  );
END $body$;
REVOKE ALL ON FUNCTION commons.sees_version(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.sees_version(bigint) TO commons_app;
"""
AFTER = "commons.sees_version(model_version_id)"
BEFORE = "EXISTS (SELECT FROM public.catalogue_modelversion v WHERE v.id = model_version_id)"
NAMES = ("modelrequest", "versionexception")


def _policy(name: str, inside: str) -> str:
    return f"ALTER POLICY tenant_wall ON public.catalogue_{name} USING ((SELECT commons.wall_open()) OR {inside})"


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0005_row_security")]
    operations = [
        migrations.RunSQL(SEES, "DROP FUNCTION commons.sees_version(bigint)"),
        *(migrations.RunSQL(_policy(name, AFTER), _policy(name, BEFORE)) for name in NAMES),
    ]
