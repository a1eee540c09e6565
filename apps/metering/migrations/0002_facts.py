"""Facts and capacity lines: partitioned by month of the hour, no default partition, no foreign keys from or to them."""

from django.db import migrations

from apps.core.partitions import month_partitioned

_OWNER = """
  team_id bigint, unit_id bigint, unit_path bigint[] NOT NULL, cost_centre varchar(50) NOT NULL,
  team_name varchar(200) NOT NULL, unit_name varchar(200) NOT NULL, workspace_id bigint, environment varchar(20) NOT NULL,
"""

FACTS = f"""
CREATE TABLE metering_hourfact (
  hour timestamptz NOT NULL, uid uuid NOT NULL, cluster_id bigint NOT NULL, {_OWNER}
  namespace varchar(120) NOT NULL, workload_key varchar(300) NOT NULL, workload_name varchar(253) NOT NULL,
  workload_kind varchar(60) NOT NULL, pod varchar(253) NOT NULL, container varchar(253) NOT NULL,
  node varchar(253) NOT NULL, flavour_id bigint, flavour_name varchar(120) NOT NULL, gpu_model varchar(120) NOT NULL,
  resource varchar(120) NOT NULL, capacity_type varchar(20) NOT NULL, spans integer[] NOT NULL,
  allocated_unit_ms bigint NOT NULL CHECK (allocated_unit_ms >= 0),
  allocated_gpu_ms bigint NOT NULL CHECK (allocated_gpu_ms >= 0),
  used_gpu_ms bigint CHECK (used_gpu_ms >= 0), used_source varchar(30) NOT NULL,
  coverage_permille smallint NOT NULL CHECK (coverage_permille BETWEEN 0 AND 1000),
  flags varchar(30)[] NOT NULL, source_id bigint NOT NULL, proof_id bigint, revision integer NOT NULL,
  PRIMARY KEY (hour, uid),
  CONSTRAINT fact_on_the_hour CHECK (extract(minute FROM hour AT TIME ZONE 'UTC') = 0
    AND extract(second FROM hour AT TIME ZONE 'UTC') = 0)
) PARTITION BY RANGE (hour);
CREATE INDEX fact_cluster_hour ON metering_hourfact (cluster_id, hour);
CREATE INDEX fact_team_hour ON metering_hourfact (team_id, hour);
CREATE INDEX fact_uid ON metering_hourfact (uid);
"""

LINES = f"""
CREATE TABLE metering_capacityline (
  hour timestamptz NOT NULL, uid uuid NOT NULL, cluster_id bigint NOT NULL, {_OWNER}
  gpu_model varchar(120) NOT NULL, kind varchar(20) NOT NULL, flavour_id bigint,
  gpu_ms bigint NOT NULL CHECK (gpu_ms >= 0), revision integer NOT NULL,
  PRIMARY KEY (hour, uid)
) PARTITION BY RANGE (hour);
CREATE INDEX line_cluster_hour ON metering_capacityline (cluster_id, hour);
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0001_initial"), ("core", "0002_month_partitions")]
    operations = [
        migrations.RunSQL(FACTS, "DROP TABLE metering_hourfact"),
        migrations.RunSQL(LINES, "DROP TABLE metering_capacityline"),
        month_partitioned("metering_hourfact"),
        month_partitioned("metering_capacityline"),
    ]
