"""Who stands behind the wall: the teams and units of a person, read from role grants and memberships in force.

Written by hand and apart from `teams.scope`: it is there for the day on which that one, or a view, is wrong. A role
anywhere opens the tenant that it is held in; which of its rows and actions a role is for is the first wall's business.
"""

from django.db import migrations

RAISE_WALL = """
CREATE FUNCTION commons.raise_wall(person bigint, at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  everywhere boolean;
  units bigint[];
  teams bigint[];
BEGIN
  PERFORM set_config('commons.user_id', person::text, false), set_config('commons.at', at::text, false);
  SELECT coalesce(bool_or(g.unit_id IS NULL AND g.team_id IS NULL), false),
         coalesce(array_agg(g.unit_id) FILTER (WHERE g.unit_id IS NOT NULL), '{}'),
         coalesce(array_agg(g.team_id) FILTER (WHERE g.team_id IS NOT NULL), '{}')
    INTO everywhere, units, teams
    FROM public.teams_rolegrant g JOIN public.accounts_user u ON u.id = g.user_id
   WHERE g.user_id = person AND u.is_active AND g.revoked_at IS NULL
     AND (g.expires_at IS NULL OR g.expires_at > at) AND (g.starts_at IS NULL OR g.starts_at <= at);
  IF everywhere THEN
    PERFORM set_config('commons.wall', '*', false), set_config('commons.wall_units', '{}', false);
    RETURN;
  END IF;
  IF units <> '{}' THEN
    SELECT coalesce(array_agg(n.id), '{}') INTO units FROM public.teams_unit n WHERE n.path && units;
    SELECT teams || coalesce(array_agg(t.id), '{}') INTO teams FROM public.teams_team t WHERE t.unit_id = ANY (units);
  END IF;
  SELECT teams || coalesce(array_agg(m.team_id), '{}') INTO teams
    FROM public.teams_membership m JOIN public.accounts_user u ON u.id = m.user_id
   WHERE m.user_id = person AND u.is_active AND m.valid @> at;
  PERFORM set_config('commons.wall', teams::text, false), set_config('commons.wall_units', units::text, false);
END $body$;
REVOKE ALL ON FUNCTION commons.raise_wall(bigint, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.raise_wall(bigint, timestamptz) TO commons_app;
"""

# Their bodies are bound when they are made, so no search path can put another function in the place of one they call;
# and they are small enough for the planner to write them into the policy. Settings that were never made, or that a
# transaction gave back, are empty: that is the portal itself.
QUESTIONS = """
CREATE FUNCTION commons.wall_open() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
  RETURN coalesce(current_setting('commons.wall', true), '') IN ('', '*')
      OR coalesce(current_setting('commons.lifted', true), '') <> '';
CREATE FUNCTION commons.wall_teams() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
  RETURN CASE WHEN current_setting('commons.wall', true) LIKE '{%'
              THEN current_setting('commons.wall', true)::bigint[] ELSE '{}'::bigint[] END;
CREATE FUNCTION commons.wall_units() RETURNS bigint[] LANGUAGE sql STABLE PARALLEL SAFE
  RETURN coalesce(nullif(current_setting('commons.wall_units', true), '')::bigint[], '{}'::bigint[]);
CREATE FUNCTION commons.wall_person() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
  RETURN nullif(current_setting('commons.user_id', true), '')::bigint;
GRANT EXECUTE ON FUNCTION commons.wall_open(), commons.wall_teams(), commons.wall_units(), commons.wall_person()
  TO commons_app;
"""


class Migration(migrations.Migration):
    dependencies = [("teams", "0004_ended_by_group"), ("core", "0004_idempotent_calls")]
    operations = [
        migrations.RunSQL(RAISE_WALL, "DROP FUNCTION commons.raise_wall(bigint, timestamptz)"),
        migrations.RunSQL(
            QUESTIONS,
            "DROP FUNCTION commons.wall_open(), commons.wall_teams(), commons.wall_units(), commons.wall_person()",
        ),
    ]
