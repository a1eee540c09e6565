"""Credits between two teams: two rows of one pair. Files count how often their making was begun."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("costs", "0005_daycharge_classes")]
    operations = [
        migrations.AddField(
            model_name="credit",
            name="pair",
            field=models.UUIDField(null=True, help_text="The same on both rows of a transfer between teams."),
        ),
        migrations.AlterField(
            model_name="credit",
            name="amount",
            field=models.DecimalField(
                decimal_places=2,
                help_text="Positive: lowers the team's statement; negative: raises it.",
                max_digits=20,
            ),
        ),
        migrations.RemoveConstraint(model_name="credit", name="credit_positive"),
        migrations.AddConstraint(
            model_name="credit",
            constraint=models.CheckConstraint(
                condition=Q(amount__gt=0) | Q(amount__lt=0, pair__isnull=False), name="credit_sign"
            ),
        ),
        migrations.AddConstraint(
            model_name="credit",
            constraint=models.UniqueConstraint(fields=["pair", "team"], name="credit_pair_once"),
        ),
        migrations.AddField(
            model_name="statementfile",
            name="attempts",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
    ]
