"""Columns and tables of the money half: resource facts, and rows that arrive after their month was closed."""

from django.db import migrations

from apps.core.partitions import month_partitioned

COLUMNS = """
ALTER TABLE metering_hourfact
  ADD COLUMN project varchar(120) NOT NULL DEFAULT '',
  ADD COLUMN purpose varchar(40) NOT NULL DEFAULT '',
  ADD COLUMN release_uid uuid,
  ADD COLUMN service_class varchar(20) NOT NULL DEFAULT '',
  ADD COLUMN gpu_memory_mib bigint CHECK (gpu_memory_mib >= 0);
"""
NO_COLUMNS = """
ALTER TABLE metering_hourfact DROP COLUMN project, DROP COLUMN purpose, DROP COLUMN release_uid,
  DROP COLUMN service_class, DROP COLUMN gpu_memory_mib;
"""
RESOURCES = """
CREATE TABLE metering_resourcefact (
  hour timestamptz NOT NULL, uid uuid NOT NULL, cluster_id bigint NOT NULL,
  team_id bigint, unit_id bigint, unit_path bigint[] NOT NULL, cost_centre varchar(50) NOT NULL,
  team_name varchar(200) NOT NULL, unit_name varchar(200) NOT NULL, workspace_id bigint,
  environment varchar(20) NOT NULL,
  namespace varchar(120) NOT NULL, workload_key varchar(300) NOT NULL, workload_name varchar(253) NOT NULL,
  workload_kind varchar(60) NOT NULL, node varchar(253) NOT NULL, capacity_type varchar(20) NOT NULL,
  resource varchar(20) NOT NULL, quantity_ms bigint NOT NULL CHECK (quantity_ms >= 0),
  requested_ms bigint CHECK (requested_ms >= 0), used_ms bigint CHECK (used_ms >= 0),
  coverage_permille smallint NOT NULL CHECK (coverage_permille BETWEEN 0 AND 1000),
  flags varchar(30)[] NOT NULL, project varchar(120) NOT NULL, purpose varchar(40) NOT NULL,
  service_class varchar(20) NOT NULL, source_id bigint NOT NULL, proof_id bigint, revision integer NOT NULL,
  PRIMARY KEY (hour, uid),
  CONSTRAINT resource_on_the_hour CHECK (extract(minute FROM hour AT TIME ZONE 'UTC') = 0
    AND extract(second FROM hour AT TIME ZONE 'UTC') = 0)
) PARTITION BY RANGE (hour);
CREATE INDEX resource_cluster_hour ON metering_resourcefact (cluster_id, hour);
CREATE INDEX resource_team_hour ON metering_resourcefact (team_id, hour);
"""
# What a source tells of an hour whose month is closed is kept beside what was billed, revision by revision.
LATE = """
CREATE TABLE metering_late{name} (LIKE metering_{source} INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
  PRIMARY KEY (hour, uid, revision)) PARTITION BY RANGE (hour);
CREATE INDEX late{name}_cluster_hour ON metering_late{name} (cluster_id, hour, revision);
"""


def late(name: str, source: str) -> list[migrations.RunSQL]:
    """Return the operations that make one append-only table like `source`."""
    return [
        migrations.RunSQL(LATE.format(name=name, source=source), f"DROP TABLE metering_late{name}"),
        month_partitioned(f"metering_late{name}"),
    ]


class Migration(migrations.Migration):
    dependencies = [("metering", "0003_money"), ("core", "0002_month_partitions")]
    operations = [
        migrations.RunSQL(COLUMNS, NO_COLUMNS),
        migrations.RunSQL(RESOURCES, "DROP TABLE metering_resourcefact"),
        month_partitioned("metering_resourcefact"),
        *late("fact", "hourfact"),
        *late("line", "capacityline"),
        *late("resource", "resourcefact"),
    ]
