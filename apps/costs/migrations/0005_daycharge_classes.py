"""Daily charges tell capacity type and service class apart, so that another price list can be tried on them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("costs", "0004_charge_columns")]
    operations = [
        migrations.AddField(
            model_name="daycharge",
            name="capacity_type",
            field=models.CharField(blank=True, db_default="", default="", max_length=20),
        ),
        migrations.AddField(
            model_name="daycharge",
            name="service_class",
            field=models.CharField(blank=True, db_default="", default="", max_length=20),
        ),
    ]
