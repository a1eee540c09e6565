"""A verdict that is unknown since its source was changed; the proof that an hour's rows came from."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("metering", "0007_waiver_ended_for")]
    operations = [
        migrations.AlterField(
            model_name="sourcecheck",
            name="verdict",
            field=models.CharField(
                choices=[
                    ("passed", "Fit to bill from"),
                    ("warned", "Fit, with remarks"),
                    ("failed", "Not fit to bill from"),
                    ("unknown", "Unknown: another server or question, not tested yet"),
                ],
                max_length=20,
            ),
        ),
        migrations.AddField(
            model_name="hourstatus",
            name="proof_id",
            field=models.BigIntegerField(help_text="The proof of the reading that the rows came from.", null=True),
        ),
    ]
