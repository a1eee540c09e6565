"""Models, their versions and what hangs on them behind the wall: the owning team, and whoever sees a request."""

from django.db import migrations

from apps.core.row_security import table

# As owner, past the walls of what it reads: a policy of models that read versions would go round in circles. Whoever
# sees the request for a version otherwise than by its team (it paid, asked, or stands in) has to see what it is about.
ASKED = """
CREATE FUNCTION commons.asked_models() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
  SELECT v.model_id
    FROM public.approvals_approvalrequest r
    JOIN public.catalogue_modelrequest q ON q.approval_id = r.id
    JOIN public.catalogue_modelversion v ON v.id = q.model_version_id
   WHERE r.team_id <> ALL (commons.wall_teams())
     AND (r.unit_id = ANY (commons.wall_units()) OR r.requester_id = commons.wall_person()
       OR r.id IN (SELECT commons.entrusted_requests()))
$body$;
REVOKE ALL ON FUNCTION commons.asked_models() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.asked_models() TO commons_app;
"""
MODEL = "(team_id IN (SELECT unnest(commons.wall_teams())) OR id IN (SELECT commons.asked_models()))"
OF_MODEL = "EXISTS (SELECT FROM public.catalogue_model m WHERE m.id = model_id)"
OF_VERSION = "EXISTS (SELECT FROM public.catalogue_modelversion v WHERE v.id = model_version_id)"


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0004_editors"), ("approvals", "0008_row_security")]
    operations = [
        migrations.RunSQL(ASKED, "DROP FUNCTION commons.asked_models()"),
        table("catalogue_model", MODEL),
        *(table(f"catalogue_{name}", OF_MODEL) for name in ("modelversion", "cardrevision", "evidence")),
        *(table(f"catalogue_{name}", OF_VERSION) for name in ("modelrequest", "versionexception")),
    ]
