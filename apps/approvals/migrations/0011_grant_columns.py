"""What the wall and lists ask of every grant, in columns of its own: no condition on JSON, no look at the request.

Behind the wall a condition on a JSON key is tried row by row after the policy (its operator is not leakproof), and the
policy itself asked a function for every grant. The columns copied from the request are written by the database,
whoever writes the grant or, some day, changes the request; they cannot say anything else than the request does.
"""

from importlib import import_module

import django.db.models.deletion
import django.db.models.fields.json
from django.conf import settings
from django.db import migrations, models

COPY = """
CREATE FUNCTION approvals_copy_to_grant() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  SELECT r.subject_type, r.team_id, r.unit_id, r.requester_id
    INTO NEW.subject_type, NEW.team_id, NEW.unit_id, NEW.requester_id
    FROM public.approvals_approvalrequest r WHERE r.id = NEW.request_id;
  NEW.subject_type := coalesce(NEW.subject_type, '');
  RETURN NEW;
END $$;
CREATE FUNCTION approvals_request_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE public.approvals_grant SET request_id = request_id WHERE request_id = NEW.id;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION approvals_copy_to_grant(), approvals_request_moved() FROM PUBLIC;
CREATE TRIGGER approvals_grant_copies BEFORE INSERT OR UPDATE ON approvals_grant
  FOR EACH ROW EXECUTE FUNCTION approvals_copy_to_grant();
CREATE TRIGGER approvals_request_moved AFTER UPDATE ON approvals_approvalrequest FOR EACH ROW
  WHEN ((OLD.subject_type, OLD.team_id, OLD.unit_id, OLD.requester_id)
    IS DISTINCT FROM (NEW.subject_type, NEW.team_id, NEW.unit_id, NEW.requester_id))
  EXECUTE FUNCTION approvals_request_moved();
"""
NO_COPY = """
DROP TRIGGER approvals_request_moved ON approvals_approvalrequest;
DROP TRIGGER approvals_grant_copies ON approvals_grant;
DROP FUNCTION approvals_copy_to_grant(), approvals_request_moved();
"""
# The copies follow the request; a generated column has no value yet before the row is written.
_guard = import_module("apps.approvals.migrations.0006_grants_kept")
_FREE = f"{_guard._FREE}, 'subject_type', 'team_id', 'unit_id', 'requester_id', 'manifest'"
_MADE = _guard._FORWARD[: _guard._FORWARD.index("CREATE TRIGGER")].replace(
    "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"
)
GUARD = _MADE.replace(_guard._FREE, _FREE)
# Every update copies.
FILL = "UPDATE approvals_grant SET revoked_reason = revoked_reason"

_POLICY = "ALTER POLICY tenant_wall ON public.approvals_grant USING ((SELECT commons.wall_open()) OR {})"
INSIDE = """team_id IN (SELECT unnest(commons.wall_teams())) OR unit_id IN (SELECT unnest(commons.wall_units()))
  OR requester_id = (SELECT commons.wall_person()) OR request_id IN (SELECT commons.entrusted_requests())"""
BEFORE = "commons.sees_request(request_id)"

# By the index on the workspaces named, which no condition behind the wall could use; keys only.
NAMING = """
CREATE FUNCTION commons.grants_naming(workspace text) RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $body$
  SELECT g.id FROM public.approvals_grant g WHERE (g.scope -> 'workspaces') @> to_jsonb(ARRAY[workspace])
$body$;
REVOKE ALL ON FUNCTION commons.grants_naming(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION commons.grants_naming(text) TO commons_app;
"""


def _copied(to: str) -> migrations.AddField:
    field = models.ForeignKey(
        to=to, on_delete=django.db.models.deletion.DO_NOTHING, null=True, editable=False, related_name="+",
        db_constraint=False, db_index=False,
    )  # fmt: skip
    name = "requester" if to == settings.AUTH_USER_MODEL else to.partition(".")[2]
    return migrations.AddField("grant", name, field)


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("approvals", "0010_row_security_quick"),
    ]
    operations = [
        _copied("teams.team"),
        _copied("teams.unit"),
        _copied(settings.AUTH_USER_MODEL),
        migrations.AddField(
            "grant", "subject_type", models.CharField(max_length=60, editable=False, blank=True, default=""),
            preserve_default=False,
        ),
        migrations.AddField(
            "grant", "manifest",
            models.GeneratedField(
                expression=django.db.models.fields.json.KeyTextTransform("manifest", "scope"), db_persist=True, null=True,
                output_field=models.CharField(max_length=64, null=True),
                help_text="The digest of the bytes that it approves; null: it approves something else.",
            ),
        ),
        migrations.RemoveIndex("grant", "grant_manifest"),
        migrations.AddIndex("grant", models.Index(fields=["manifest"], name="grant_of_manifest")),
        migrations.RunSQL(GUARD, _MADE),
        migrations.RunSQL(COPY, NO_COPY),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.RunSQL(_POLICY.format(f"({INSIDE})"), _POLICY.format(BEFORE)),
        migrations.RunSQL(NAMING, "DROP FUNCTION commons.grants_naming(text)"),
    ]  # fmt: skip
