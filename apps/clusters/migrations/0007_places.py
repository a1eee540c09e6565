"""Where clusters stood at a time: written when it changes, never rewritten."""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.db import migrations, models

_GUARD = """
CREATE FUNCTION clusters_guard_place() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'where a cluster stood is history' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER clusters_place_guard BEFORE UPDATE OR DELETE ON clusters_clusterplace
  FOR EACH ROW EXECUTE FUNCTION clusters_guard_place();
"""
_UNGUARD = "DROP TRIGGER clusters_place_guard ON clusters_clusterplace; DROP FUNCTION clusters_guard_place();"


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_second_persons"),
        ("clusters", "0006_location"),
    ]

    operations = [
        migrations.CreateModel(
            name="ClusterPlace",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "location",
                    models.CharField(
                        blank=True,
                        choices=[("", "Not stated"), ("on_premises", "On premises"), ("cloud", "Cloud")],
                        default="",
                        max_length=20,
                    ),
                ),
                ("jurisdiction", models.CharField(blank=True, max_length=10)),
                (
                    "starts_at",
                    models.DateTimeField(help_text="Null: as it was stated before the first change.", null=True),
                ),
                (
                    "cluster",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="places", to="clusters.cluster"
                    ),
                ),
                (
                    "stated_by",
                    models.ForeignKey(
                        null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.user"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("cluster", "starts_at"), name="cluster_place_once", nulls_distinct=False
                    )
                ],
            },
        ),
        migrations.RunSQL(_GUARD, _UNGUARD),
    ]
