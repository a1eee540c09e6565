"""What a charge's price depends on besides flavour and cluster."""

from django.db import migrations

FORWARD = """
ALTER TABLE costs_charge
  ADD COLUMN environment varchar(20) NOT NULL DEFAULT '',
  ADD COLUMN capacity_type varchar(20) NOT NULL DEFAULT '',
  ADD COLUMN service_class varchar(20) NOT NULL DEFAULT '';
CREATE INDEX charge_fact ON costs_charge (fact_uid);
"""
BACKWARD = """
DROP INDEX charge_fact;
ALTER TABLE costs_charge DROP COLUMN environment, DROP COLUMN capacity_type, DROP COLUMN service_class;
"""


class Migration(migrations.Migration):
    dependencies = [("costs", "0003_money")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
