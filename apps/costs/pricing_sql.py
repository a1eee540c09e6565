"""The statements that turn facts, capacity lines and resource facts of whole hours into charges, set by set.

In a whole hour every price is in force either all of it or not at all, so that each row has one price: the best that
fits its capacity type and service class (`rates.choosing`). Hours inside which a price begins or ends are split in
`pricing`.
"""

# ruff: noqa: S608 (statements put together from constants of this module)

from __future__ import annotations

from apps.rates.choosing import SQL_ORDER

COLUMNS = (
    "hour", "uid", "kind", "cluster_id", "team_id", "unit_id", "unit_path", "cost_centre", "team_name", "unit_name",
    "workspace_id", "flavour_id", "gpu_model", "rate_id", "quantity_ms", "gpu_ms", "fact_uid", "revision",
    "environment", "capacity_type", "service_class",
)  # fmt: skip
_INSERT = f"INSERT INTO costs_charge ({', '.join(COLUMNS)})"
_WINDOW = "{0}.cluster_id = %(cluster)s AND {0}.hour >= %(low)s AND {0}.hour <= %(high)s AND {0}.hour = ANY(%(hours)s)"
_OWNER = "{0}.team_id, {0}.unit_id, {0}.unit_path, {0}.cost_centre, {0}.team_name, {0}.unit_name, {0}.workspace_id"


def _rate(row: str, what: str, capacity_type: str, service_class: str) -> str:
    """The one price of a row in a whole hour."""
    return (
        "LEFT JOIN LATERAL (SELECT r.id FROM rates_rate r"
        f" WHERE r.cluster_id = %(cluster)s AND {what}"
        f" AND r.capacity_type IN ('', {capacity_type}) AND r.service_class IN ('', {service_class})"
        f" AND r.valid @> tstzrange({row}.hour, {row}.hour + interval '1 hour', '[)')"
        f" ORDER BY {SQL_ORDER} LIMIT 1) rate ON true"
    )


#: Resources that the cluster sells, and since when: before its first price a resource is not charged for at all.
_SOLD = (
    "(SELECT resource, min(coalesce(lower(valid), '-infinity')) AS since FROM rates_rate"
    " WHERE cluster_id = %(cluster)s AND flavour_id IS NULL GROUP BY resource)"
)
KIND_OF_FACT = "CASE WHEN f.team_id IS NULL THEN 'unattributed' ELSE 'allocated' END"
#: Units of the flavour behind a capacity line's GPU time.
UNITS_OF_LINE = "coalesce(l.gpu_ms * v.denominator / v.numerator, l.gpu_ms)"
CHARGED_LINES = "l.kind IN ('reserved_unused', 'unsold', 'stranded', 'maintenance')"

FACTS = f"""{_INSERT}
SELECT f.hour, f.uid, {KIND_OF_FACT}, f.cluster_id, {_OWNER.format("f")}, f.flavour_id, f.gpu_model, rate.id,
  f.allocated_unit_ms, f.allocated_gpu_ms, f.uid, f.revision, f.environment, f.capacity_type, f.service_class
FROM metering_hourfact f
{_rate("f", "r.flavour_id = f.flavour_id", "f.capacity_type", "f.service_class")}
WHERE {_WINDOW.format("f")}"""

# What nobody held was bought in no particular way and promised to nobody: the price for every type, standard class.
LINES = f"""{_INSERT}
SELECT l.hour, l.uid, l.kind, l.cluster_id, {_OWNER.format("l")}, l.flavour_id, l.gpu_model, rate.id,
  {UNITS_OF_LINE}, l.gpu_ms, l.uid, l.revision, l.environment, '', ''
FROM metering_capacityline l
LEFT JOIN clusters_flavour v ON v.id = l.flavour_id
{_rate("l", "r.flavour_id = l.flavour_id", "''", "''")}
WHERE {_WINDOW.format("l")} AND {CHARGED_LINES}"""

RESOURCES = f"""{_INSERT}
SELECT f.hour, f.uid, f.resource, f.cluster_id, {_OWNER.format("f")}, NULL, '', rate.id,
  f.quantity_ms, 0, f.uid, f.revision, f.environment, f.capacity_type, f.service_class
FROM metering_resourcefact f
JOIN {_SOLD} sold ON sold.resource = f.resource AND f.hour >= sold.since
{_rate("f", "r.flavour_id IS NULL AND r.resource = f.resource", "f.capacity_type", "f.service_class")}
WHERE {_WINDOW.format("f")}"""

#: Everything chargeable of the hours that a price splits, in one form: … flavour, model, resource, spans, quantities.
SPLIT = f"""
SELECT f.hour, f.uid, {KIND_OF_FACT}, f.cluster_id, {_OWNER.format("f")}, f.flavour_id, f.gpu_model, '' AS resource,
  f.spans, f.allocated_unit_ms, f.allocated_gpu_ms, f.revision, f.environment, f.capacity_type, f.service_class
FROM metering_hourfact f WHERE {_WINDOW.format("f")}
UNION ALL
SELECT l.hour, l.uid, l.kind, l.cluster_id, {_OWNER.format("l")}, l.flavour_id, l.gpu_model, '',
  '{{}}'::integer[], {UNITS_OF_LINE}, l.gpu_ms, l.revision, l.environment, '', ''
FROM metering_capacityline l LEFT JOIN clusters_flavour v ON v.id = l.flavour_id
WHERE {_WINDOW.format("l")} AND {CHARGED_LINES}
UNION ALL
SELECT f.hour, f.uid, f.resource, f.cluster_id, {_OWNER.format("f")}, NULL, '', f.resource,
  '{{}}'::integer[], f.quantity_ms, 0, f.revision, f.environment, f.capacity_type, f.service_class
FROM metering_resourcefact f WHERE {_WINDOW.format("f")}"""

DELETE = f"DELETE FROM costs_charge c WHERE {_WINDOW.format('c')}"

ROLL_UP = """
INSERT INTO costs_daycharge (day, cluster_id, kind, team_id, unit_id, cost_centre, team_name, unit_name,
  flavour_id, gpu_model, rate_id, capacity_type, service_class, quantity_ms, gpu_ms)
SELECT day, cluster_id, kind, team_id, unit_id, cost_centre, max(team_name), max(unit_name), flavour_id,
  gpu_model, rate_id, capacity_type, service_class, sum(quantity_ms), sum(gpu_ms)
FROM (
  SELECT ((hour AT TIME ZONE 'UTC') + %s::interval)::date AS day, c.* FROM costs_charge c
  WHERE cluster_id = %s AND hour >= %s AND hour < %s
) charge
WHERE day = ANY(%s)
GROUP BY day, cluster_id, kind, team_id, unit_id, cost_centre, flavour_id, gpu_model, rate_id, capacity_type,
  service_class"""

# Due are: facts of a revision that is not priced; hours with unpriced quantity for which a price of the cluster was
# published since; hours for which a resource got a price after they were priced (an import into the past). A closed
# month is left alone whatever is published.
DUE = """
WITH late AS (
  SELECT cluster_id, valid, created_at FROM rates_rate WHERE flavour_id IS NULL AND created_at > lower(valid)
)
SELECT s.id FROM metering_hourstatus s
LEFT JOIN costs_pricedhour p ON p.cluster_id = s.cluster_id AND p.hour = s.hour
WHERE s.revision > 0 AND (p.id IS NULL OR p.revision <> s.revision
  OR (p.unpriced_ms > 0 AND EXISTS (
    SELECT FROM rates_rate r WHERE r.cluster_id = s.cluster_id AND r.created_at > p.priced_at
      AND r.valid && tstzrange(s.hour, s.hour + interval '1 hour', '[)')))
  OR EXISTS (
    SELECT FROM late WHERE late.cluster_id = s.cluster_id AND late.created_at > p.priced_at
      AND late.valid && tstzrange(s.hour, s.hour + interval '1 hour', '[)')))
  AND NOT EXISTS (
    SELECT FROM costs_period c WHERE c.status = 'closed' AND c.start <= s.hour AND s.hour < c."end")
ORDER BY s.hour DESC, s.id LIMIT %s"""
