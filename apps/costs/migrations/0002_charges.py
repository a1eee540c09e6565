"""Charges: partitioned by month of the hour, no default partition, no foreign keys from or to them."""

from django.db import migrations

from apps.core.partitions import month_partitioned

CHARGES = """
CREATE TABLE costs_charge (
  hour timestamptz NOT NULL, uid uuid NOT NULL, kind varchar(20) NOT NULL, cluster_id bigint NOT NULL,
  team_id bigint, unit_id bigint, unit_path bigint[] NOT NULL, cost_centre varchar(50) NOT NULL,
  team_name varchar(200) NOT NULL, unit_name varchar(200) NOT NULL, workspace_id bigint,
  flavour_id bigint, gpu_model varchar(120) NOT NULL, rate_id bigint,
  quantity_ms bigint NOT NULL, gpu_ms bigint NOT NULL, fact_uid uuid, revision integer NOT NULL,
  PRIMARY KEY (hour, uid)
) PARTITION BY RANGE (hour);
CREATE INDEX charge_cluster_hour ON costs_charge (cluster_id, hour);
CREATE INDEX charge_team_hour ON costs_charge (team_id, hour);
"""


class Migration(migrations.Migration):
    dependencies = [("costs", "0001_initial"), ("metering", "0002_facts"), ("core", "0002_month_partitions")]
    operations = [
        migrations.RunSQL(CHARGES, "DROP TABLE costs_charge"),
        month_partitioned("costs_charge"),
    ]
