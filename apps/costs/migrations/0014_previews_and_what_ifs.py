"""Previews of months with what they were made from, and what-ifs that a worker answers; of the asker alone."""

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.db import migrations, models

from apps.core.row_security import table


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_second_persons"),
        ("costs", "0013_running"),
    ]

    operations = [
        migrations.AddField(
            model_name="runningmonth",
            name="alive_at",
            field=models.DateTimeField(help_text="Last sign of life of the worker that is at it.", null=True),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="asked_at",
            field=models.DateTimeField(
                help_text="Somebody asked to have them made anew; done once made later.", null=True
            ),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="asked_by",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.SET_NULL, related_name="+", to="accounts.user"
            ),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="bill",
            field=models.DecimalField(decimal_places=2, max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="confirmed",
            field=models.JSONField(
                help_text="What the person saw who confirmed the close: digest, bill, when it was made.", null=True
            ),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="digest",
            field=models.CharField(blank=True, help_text="SHA-256 over all numbers and amounts.", max_length=64),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="done",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="error",
            field=models.TextField(blank=True),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="marker",
            field=models.CharField(blank=True, help_text="Digest of what they were made from.", max_length=64),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="policy",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="costs.distributionpolicy"
            ),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="state",
            field=models.CharField(
                choices=[("queued", "Queued"), ("running", "Being made"), ("done", "Ready"), ("failed", "Failed")],
                default="done",
                max_length=20,
            ),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="statements",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="total",
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name="runningmonth",
            name="unpriced_ms",
            field=models.BigIntegerField(default=0),
        ),
        migrations.AlterField(
            model_name="runningmonth",
            name="made_at",
            field=models.DateTimeField(help_text="NULL: never yet.", null=True),
        ),
        migrations.CreateModel(
            name="WhatIfRun",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("uid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("version", models.PositiveIntegerField(default=1, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("question", models.JSONField()),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Being made"),
                            ("done", "Ready"),
                            ("failed", "Failed"),
                        ],
                        default="queued",
                        max_length=20,
                    ),
                ),
                ("done", models.PositiveIntegerField(default=0)),
                ("total", models.PositiveIntegerField(default=0)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("error", models.TextField(blank=True)),
                ("answer", models.JSONField(null=True)),
                (
                    "reach",
                    models.CharField(
                        blank=True, help_text="Digest of the rights that the answer was made with.", max_length=64
                    ),
                ),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "requested_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="accounts.user"
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["requested_by", "-created_at"], name="whatif_own"),
                    models.Index(
                        condition=models.Q(("status__in", ["queued", "running"])), fields=["id"], name="whatif_due"
                    ),
                ],
            },
        ),
        table("costs_whatifrun", "requested_by_id = (SELECT commons.wall_person())"),
    ]
