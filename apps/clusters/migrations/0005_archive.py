from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("clusters", "0004_expiry_notices"),
    ]

    operations = [
        migrations.AddField(
            model_name="cluster",
            name="archived_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
