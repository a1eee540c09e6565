"""A plain renewal may be open beside one other request of its workspace and flavour.

What is open already keeps the one place it has: it was submitted without giving way to anything.
"""

from typing import ClassVar

from django.db import migrations, models

OPEN = ("status__in", ["in_review", "waiting_for_capacity"])


class Migration(migrations.Migration):
    dependencies: ClassVar = [("quotas", "0009_row_security_quick")]
    operations: ClassVar = [
        migrations.AddField(
            model_name="quotarequest",
            name="is_renewal",
            field=models.BooleanField(
                db_default=False,
                default=False,
                editable=False,
                help_text="It continues a quota from its end on and takes no more: one may be open beside another "
                "request.",
            ),
        ),
        migrations.RemoveConstraint(model_name="quotarequest", name="request_one_open"),
        migrations.AddConstraint(
            model_name="quotarequest",
            constraint=models.UniqueConstraint(
                condition=models.Q(("is_renewal", False), OPEN),
                fields=("workspace", "flavour"),
                name="request_one_open",
            ),
        ),
        migrations.AddConstraint(
            model_name="quotarequest",
            constraint=models.UniqueConstraint(
                condition=models.Q(("is_renewal", True), OPEN),
                fields=("workspace", "flavour"),
                name="request_one_renewal_open",
            ),
        ),
    ]
