"""Whoever writes: a credit and the opening of a closed month take a second person, and one who is named."""

from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    dependencies = [("costs", "0010_report_sums")]
    operations = [
        migrations.RemoveConstraint(model_name="credit", name="credit_second_person"),
        migrations.AddConstraint(
            model_name="credit",
            constraint=models.CheckConstraint(
                condition=~Q(status="approved") | Q(decided_by__isnull=False) & ~Q(decided_by=F("proposed_by")),
                name="credit_second_person",
            ),
        ),
        migrations.AddConstraint(
            model_name="reopenrequest",
            constraint=models.CheckConstraint(
                condition=~Q(status="approved") | Q(decided_by__isnull=False) & ~Q(decided_by=F("requested_by")),
                name="reopen_second_person",
            ),
        ),
    ]
