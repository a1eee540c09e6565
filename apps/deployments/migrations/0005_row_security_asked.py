"""Whoever sees a release because they are asked about it sees the model that it serves, too."""

from django.db import migrations

_HEAD = """
CREATE OR REPLACE FUNCTION commons.released_models() RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
  SELECT e.model_id
    FROM public.deployments_endpoint e
    JOIN public.quotas_workspace w ON w.id = e.workspace_id
   WHERE w.team_id = ANY (commons.wall_teams())
"""
_ASKED = """   UNION
  SELECT e.model_id
    FROM commons.asked_endpoints() AS asked (id)
    JOIN public.deployments_endpoint e ON e.id = asked.id
$body$
"""


class Migration(migrations.Migration):
    dependencies = [("deployments", "0004_row_security")]
    operations = [migrations.RunSQL(_HEAD + _ASKED, _HEAD + "$body$")]
