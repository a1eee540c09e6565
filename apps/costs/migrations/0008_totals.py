"""Monthly and daily sums of daily charges and usage, filled from what is there."""

from django.db import migrations, models

_PRICED = """
  coalesce(max(r.currency), ''), sum(d.quantity_ms), sum(d.gpu_ms),
  coalesce(sum(d.quantity_ms * r.amount), 0)
FROM costs_daycharge d LEFT JOIN rates_rate r ON r.id = d.rate_id
"""
_FILL = [
    f"""
    INSERT INTO costs_daytotal (day, cluster_id, unit_id, kind, currency, quantity_ms, gpu_ms, product)
    SELECT d.day, d.cluster_id, d.unit_id, d.kind, {_PRICED} GROUP BY 1, 2, 3, 4, r.currency
    """,
    f"""
    INSERT INTO costs_monthtotal (month, cluster_id, kind, team_id, unit_id, flavour_id, capacity_type, service_class,
      currency, quantity_ms, gpu_ms, product)
    SELECT date_trunc('month', d.day)::date, d.cluster_id, d.kind, d.team_id, d.unit_id, d.flavour_id, d.capacity_type,
      d.service_class, {_PRICED} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, r.currency
    """,
    """
    INSERT INTO costs_monthtotal (month, cluster_id, kind, team_id, unit_id, capacity_type, service_class, currency,
      quantity_ms, gpu_ms, used_gpu_ms, measured_gpu_ms, idle_gpu_ms)
    SELECT date_trunc('month', u.day)::date, u.cluster_id, 'usage', u.team_id, u.unit_id, '', '', '',
      sum(u.allocated_gpu_ms), sum(u.allocated_gpu_ms), sum(u.used_gpu_ms), sum(u.measured_gpu_ms), sum(u.idle_gpu_ms)
    FROM metering_dayusage u GROUP BY 1, 2, 4, 5
    """,
]
_SUMMED = [
    ("id", models.BigAutoField(primary_key=True, serialize=False)),
    ("cluster_id", models.BigIntegerField()),
    ("unit_id", models.BigIntegerField(null=True)),
    ("kind", models.CharField(max_length=20)),
    ("currency", models.CharField(blank=True, help_text="Empty: none of it has a price.", max_length=3)),
    ("quantity_ms", models.BigIntegerField()),
    ("gpu_ms", models.BigIntegerField()),
    ("product", models.DecimalField(db_default=0, decimal_places=8, default=0, max_digits=40)),
]


class Migration(migrations.Migration):
    dependencies = [("costs", "0007_closed_months"), ("metering", "0003_money"), ("rates", "0003_money")]
    operations = [
        migrations.CreateModel(
            name="DayTotal",
            fields=[*_SUMMED, ("day", models.DateField())],
            options={
                "indexes": [
                    models.Index(fields=["day", "unit_id"], name="daytotal_day_unit"),
                    models.Index(fields=["cluster_id", "day"], name="daytotal_cluster_day"),
                ],
            },
        ),
        migrations.CreateModel(
            name="MonthTotal",
            fields=[
                *_SUMMED,
                ("month", models.DateField()),
                ("team_id", models.BigIntegerField(null=True)),
                ("flavour_id", models.BigIntegerField(null=True)),
                ("capacity_type", models.CharField(blank=True, max_length=20)),
                ("service_class", models.CharField(blank=True, max_length=20)),
                ("used_gpu_ms", models.BigIntegerField(db_default=0, default=0)),
                ("measured_gpu_ms", models.BigIntegerField(db_default=0, default=0)),
                ("idle_gpu_ms", models.BigIntegerField(db_default=0, default=0)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["month", "unit_id"], name="monthtotal_month_unit"),
                    models.Index(fields=["cluster_id", "month"], name="monthtotal_cluster_month"),
                ],
            },
        ),
        *[migrations.RunSQL(statement, migrations.RunSQL.noop) for statement in _FILL],
    ]
