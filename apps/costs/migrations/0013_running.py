"""Running statements, made by a worker and read by pages; behind the wall as statements are."""

import django.db.models.deletion
from django.db import migrations, models

from apps.core.row_security import table
from apps.costs.choices import OwnerKind

STATEMENT = """(
  team_id IN (SELECT unnest(commons.wall_teams())) OR unit_id IN (SELECT unnest(commons.wall_units()))
)"""


class Migration(migrations.Migration):
    dependencies = [("costs", "0012_row_security")]
    operations = [
        migrations.CreateModel(
            name="RunningMonth",
            fields=[
                (
                    "period",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="running",
                        serialize=False,
                        to="costs.period",
                    ),
                ),
                ("made_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="RunningStatement",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("made_at", models.DateTimeField()),
                ("rank", models.PositiveSmallIntegerField(help_text="Platform, units, teams, cost centres.")),
                ("number", models.CharField(max_length=40)),
                ("owner_kind", models.CharField(choices=OwnerKind.choices, max_length=20)),
                ("team_id", models.BigIntegerField(null=True)),
                ("unit_id", models.BigIntegerField(null=True)),
                ("cost_centre", models.CharField(blank=True, max_length=50)),
                ("team_name", models.CharField(blank=True, max_length=200)),
                ("unit_name", models.CharField(blank=True, max_length=200)),
                ("own_amount", models.DecimalField(decimal_places=2, max_digits=20)),
                ("amount", models.DecimalField(decimal_places=2, max_digits=20)),
                ("currency", models.CharField(max_length=3)),
                ("gpu_ms", models.BigIntegerField(default=0)),
                ("unpriced_ms", models.BigIntegerField(default=0)),
                ("line_count", models.PositiveIntegerField(default=0)),
                ("lines", models.JSONField(default=list)),
                (
                    "period",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="running_statements",
                        to="costs.period",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["period", "rank", "number"], name="running_order")],
                "constraints": [models.UniqueConstraint(fields=("period", "number"), name="running_number")],
            },
        ),
        table("costs_runningstatement", STATEMENT),
    ]
