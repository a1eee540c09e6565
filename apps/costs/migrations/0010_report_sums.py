"""Monthly sums by team in one row and by unit, filled from the monthly sums that are there."""

from django.db import migrations, models

_TEAMS = """
INSERT INTO costs_teammonth (month, cluster_id, team_id, unit_id, currency, priced_ms, unpriced_ms, gpu_ms,
  unpriced_gpu_ms, product, resource_priced_ms, resource_unpriced_ms, resource_product, allocated_gpu_ms, used_gpu_ms,
  measured_gpu_ms, idle_gpu_ms, spare_priced_ms, spare_unpriced_ms, spare_gpu_ms, spare_unpriced_gpu_ms, spare_product)
SELECT m.month, m.cluster_id, m.team_id, m.unit_id,
  CASE WHEN min(nullif(m.currency, '')) < max(m.currency) THEN min(nullif(m.currency, '')) || ',' || max(m.currency)
    ELSE max(m.currency) END,
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.paid AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.paid AND m.currency = ''), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.paid), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.paid AND m.currency = ''), 0),
  coalesce(sum(m.product) FILTER (WHERE k.paid AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.resource AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.resource AND m.currency = ''), 0),
  coalesce(sum(m.product) FILTER (WHERE k.resource AND m.currency <> ''), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.usage), 0), sum(m.used_gpu_ms), sum(m.measured_gpu_ms), sum(m.idle_gpu_ms),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.spare AND m.currency <> ''), 0),
  coalesce(sum(m.quantity_ms) FILTER (WHERE k.spare AND m.currency = ''), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.spare), 0),
  coalesce(sum(m.gpu_ms) FILTER (WHERE k.spare AND m.currency = ''), 0),
  coalesce(sum(m.product) FILTER (WHERE k.spare AND m.currency <> ''), 0)
FROM costs_monthtotal m JOIN (VALUES
  ('allocated', true, false, false, false), ('unattributed', true, false, false, false),
  ('cpu', true, true, false, false), ('memory', true, true, false, false), ('storage', true, true, false, false),
  ('egress', true, true, false, false), ('usage', false, false, true, false),
  ('reserved_unused', false, false, false, true)
) AS k (kind, paid, resource, usage, spare) ON k.kind = m.kind
GROUP BY 1, 2, 3, 4
"""
_UNITS = """
INSERT INTO costs_unitmonth (month, cluster_id, unit_id, kind, flavour_id, capacity_type, service_class, currency,
  quantity_ms, gpu_ms, product)
SELECT m.month, m.cluster_id, m.unit_id, m.kind, m.flavour_id, m.capacity_type, m.service_class, m.currency,
  sum(m.quantity_ms), sum(m.gpu_ms), sum(m.product)
FROM costs_monthtotal m
WHERE m.kind <> 'usage'
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""
_QUANTITIES = (
    "priced_ms", "unpriced_ms", "gpu_ms", "unpriced_gpu_ms", "resource_priced_ms", "resource_unpriced_ms",
    "allocated_gpu_ms", "used_gpu_ms", "measured_gpu_ms", "idle_gpu_ms", "spare_priced_ms", "spare_unpriced_ms",
    "spare_gpu_ms", "spare_unpriced_gpu_ms",
)  # fmt: skip
_PRODUCTS = ("product", "resource_product", "spare_product")


def _product():
    return models.DecimalField(db_default=0, decimal_places=8, default=0, max_digits=40)


class Migration(migrations.Migration):
    dependencies = [("costs", "0009_cross_check_settings")]
    operations = [
        migrations.CreateModel(
            name="UnitMonth",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("cluster_id", models.BigIntegerField()),
                ("unit_id", models.BigIntegerField(null=True)),
                ("kind", models.CharField(max_length=20)),
                ("currency", models.CharField(blank=True, help_text="Empty: none of it has a price.", max_length=3)),
                ("quantity_ms", models.BigIntegerField()),
                ("gpu_ms", models.BigIntegerField()),
                ("product", _product()),
                ("month", models.DateField()),
                ("flavour_id", models.BigIntegerField(null=True)),
                ("capacity_type", models.CharField(blank=True, max_length=20)),
                ("service_class", models.CharField(blank=True, max_length=20)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["month", "unit_id"], name="unitmonth_month_unit"),
                    models.Index(fields=["cluster_id", "month"], name="unitmonth_cluster_month"),
                ],
            },
        ),
        migrations.CreateModel(
            name="TeamMonth",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("month", models.DateField()),
                ("cluster_id", models.BigIntegerField()),
                ("team_id", models.BigIntegerField(null=True)),
                ("unit_id", models.BigIntegerField(null=True)),
                (
                    "currency",
                    models.CharField(blank=True, help_text="Two of them: a defect, told by the report.", max_length=7),
                ),
                *[(name, models.BigIntegerField(db_default=0, default=0)) for name in _QUANTITIES],
                *[(name, _product()) for name in _PRODUCTS],
            ],
            options={
                "indexes": [
                    models.Index(fields=["month", "unit_id"], name="teammonth_month_unit"),
                    models.Index(fields=["cluster_id", "month"], name="teammonth_cluster_month"),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="monthtotal",
            index=models.Index(fields=["team_id", "month"], name="monthtotal_team_month"),
        ),
        migrations.RunSQL(_TEAMS, migrations.RunSQL.noop),
        migrations.RunSQL(_UNITS, migrations.RunSQL.noop),
    ]
