"""A role's beginning counts among what direct SQL must not change unseen: moved back, a right to come counts at once."""

from django.db import migrations

COLUMNS = ("user_id", "role", "unit_id", "team_id", "starts_at", "expires_at", "revoked_at", "mapping_id")


def _trigger(columns: tuple[str, ...]) -> str:
    old, new = (", ".join(f'{row}."{name}"' for name in columns) for row in ("OLD", "NEW"))
    return (
        "DROP TRIGGER audit_change_update ON public.teams_rolegrant;"
        "CREATE TRIGGER audit_change_update AFTER UPDATE ON public.teams_rolegrant FOR EACH ROW"
        f" WHEN (ROW({old}) IS DISTINCT FROM ROW({new})) EXECUTE FUNCTION audit.note_change();"
    )


class Migration(migrations.Migration):
    dependencies = [("audit", "0006_reconciliation_snapshot"), ("teams", "0002_identity")]
    operations = [
        migrations.RunSQL(_trigger(COLUMNS), _trigger(tuple(name for name in COLUMNS if name != "starts_at"))),
    ]
