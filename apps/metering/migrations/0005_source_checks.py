"""A source can be asked to be tested: when, and by whom."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("metering", "0004_money_tables"),
    ]

    operations = [
        migrations.AddField(
            model_name="source",
            name="check_requested_at",
            field=models.DateTimeField(
                help_text="A self-test was asked for; due while later than the newest one.", null=True
            ),
        ),
        migrations.AddField(
            model_name="source",
            name="check_requested_by",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
    ]
