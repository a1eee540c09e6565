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


#: An edge of a price that lies inside an hour.
_EDGE = (
    "(lower(r.valid) > need.hour AND lower(r.valid) < need.hour + interval '1 hour'"
    " OR upper(r.valid) > need.hour AND upper(r.valid) < need.hour + interval '1 hour')"
)


def _prices(columns: str, rows: str, what: str, sold: str = "") -> str:
    """WITH clause `price`: what the rows of a table need prices for, each once, with the best price of the whole hour.

    `split`: a price that fits begins or ends inside the hour, so that the row is for `pricing` to split.
    """
    fits = (
        f"r.cluster_id = %(cluster)s AND {what}"
        " AND r.capacity_type IN ('', need.capacity_type) AND r.service_class IN ('', need.service_class)"
    )
    early, begins = "false", "false"
    if sold:
        early, begins = (
            "need.hour < sold.since",
            "sold.since > need.hour AND sold.since < need.hour + interval '1 hour'",
        )
    return f"""WITH need AS MATERIALIZED (SELECT DISTINCT {columns} FROM {rows}),
price AS MATERIALIZED (
  SELECT need.*, rate.id AS rate_id, {early} AS early, edge.inside OR {begins} AS split
  FROM need {sold}
  LEFT JOIN LATERAL (SELECT r.id FROM rates_rate r WHERE {fits}
    AND r.valid @> tstzrange(need.hour, need.hour + interval '1 hour', '[)')
    ORDER BY {SQL_ORDER} LIMIT 1) rate ON true
  CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM rates_rate r WHERE {fits} AND {_EDGE}) AS inside) edge
)"""


#: Resources that the cluster sells, and since when: before its first price a resource is not charged for at all.
_SOLD = (
    "(SELECT resource, min(coalesce(lower(valid), '-infinity')) AS since FROM rates_rate"
    " WHERE cluster_id = %(cluster)s AND flavour_id IS NULL GROUP BY resource)"
)
KIND_OF_FACT = "CASE WHEN f.team_id IS NULL THEN 'unattributed' ELSE 'allocated' END"
#: Units of the flavour behind a capacity line's GPU time.
UNITS_OF_LINE = "coalesce(l.gpu_ms * v.denominator / v.numerator, l.gpu_ms)"
CHARGED_LINES = "l.kind IN ('reserved_unused', 'unsold', 'stranded', 'maintenance')"

_FACT_ROWS = f"metering_hourfact f WHERE {_WINDOW.format('f')}"
_LINE_ROWS = f"metering_capacityline l WHERE {_WINDOW.format('l')} AND {CHARGED_LINES}"
_RESOURCE_ROWS = f"metering_resourcefact f WHERE {_WINDOW.format('f')}"
_FACT_PRICES = _prices(
    "f.hour, f.flavour_id, f.capacity_type, f.service_class", _FACT_ROWS, "r.flavour_id = need.flavour_id"
)
# What nobody held was bought in no particular way and promised to nobody: the price for every type, standard class.
_LINE_PRICES = _prices(
    "l.hour, l.flavour_id, '' AS capacity_type, '' AS service_class", _LINE_ROWS, "r.flavour_id = need.flavour_id"
)
_RESOURCE_PRICES = _prices(
    "f.hour, f.resource, f.capacity_type, f.service_class", _RESOURCE_ROWS,
    "r.flavour_id IS NULL AND r.resource = need.resource", f"JOIN {_SOLD} sold USING (resource)",
)  # fmt: skip
_SAME_FACT = (
    "price.hour = f.hour AND coalesce(price.flavour_id, 0) = coalesce(f.flavour_id, 0)"
    " AND price.capacity_type = f.capacity_type AND price.service_class = f.service_class"
)
_SAME_LINE = "price.hour = l.hour AND coalesce(price.flavour_id, 0) = coalesce(l.flavour_id, 0)"
_SAME_RESOURCE = (
    "price.hour = f.hour AND price.resource = f.resource AND price.capacity_type = f.capacity_type"
    " AND price.service_class = f.service_class"
)

FACTS = f"""{_FACT_PRICES}
{_INSERT}
SELECT f.hour, f.uid, {KIND_OF_FACT}, f.cluster_id, {_OWNER.format("f")}, f.flavour_id, f.gpu_model, price.rate_id,
  f.allocated_unit_ms, f.allocated_gpu_ms, f.uid, f.revision, f.environment, f.capacity_type, f.service_class
FROM price JOIN metering_hourfact f ON {_SAME_FACT}
WHERE NOT price.split AND {_WINDOW.format("f")}"""

LINES = f"""{_LINE_PRICES}
{_INSERT}
SELECT l.hour, l.uid, l.kind, l.cluster_id, {_OWNER.format("l")}, l.flavour_id, l.gpu_model, price.rate_id,
  {UNITS_OF_LINE}, l.gpu_ms, l.uid, l.revision, l.environment, '', ''
FROM price JOIN metering_capacityline l ON {_SAME_LINE}
LEFT JOIN clusters_flavour v ON v.id = l.flavour_id
WHERE NOT price.split AND {_WINDOW.format("l")} AND {CHARGED_LINES}"""

RESOURCES = f"""{_RESOURCE_PRICES}
{_INSERT}
SELECT f.hour, f.uid, f.resource, f.cluster_id, {_OWNER.format("f")}, NULL, '', price.rate_id,
  f.quantity_ms, 0, f.uid, f.revision, f.environment, f.capacity_type, f.service_class
FROM price JOIN metering_resourcefact f ON {_SAME_RESOURCE}
WHERE NOT price.split AND NOT price.early AND {_WINDOW.format("f")}"""

#: What a price splits, table by table: prices, its rows, and its columns in the order of `COLUMNS`.
_SPLIT_TABLES = (
    (
        _FACT_PRICES, f"price JOIN metering_hourfact f ON {_SAME_FACT} WHERE price.split AND {_WINDOW.format('f')}",
        "f", KIND_OF_FACT, "f.flavour_id", "f.gpu_model", "''", "f.spans", "f.allocated_unit_ms", "f.allocated_gpu_ms",
        "f.capacity_type", "f.service_class",
    ),
    (
        _LINE_PRICES,
        f"price JOIN metering_capacityline l ON {_SAME_LINE} LEFT JOIN clusters_flavour v ON v.id = l.flavour_id"
        f" WHERE price.split AND {_WINDOW.format('l')} AND {CHARGED_LINES}",
        "l", "l.kind", "l.flavour_id", "l.gpu_model", "''", "'{}'::integer[]", UNITS_OF_LINE, "l.gpu_ms", "''", "''",
    ),
    (
        _RESOURCE_PRICES,
        f"price JOIN metering_resourcefact f ON {_SAME_RESOURCE} WHERE price.split AND {_WINDOW.format('f')}",
        "f", "f.resource", "NULL::bigint", "''", "f.resource", "'{}'::integer[]", "f.quantity_ms", "0::bigint",
        "f.capacity_type", "f.service_class",
    ),
)  # fmt: skip


def _split_shapes(table: tuple[str, ...]) -> str:
    prices, rows, row, _, flavour, _, resource, spans, units, gpu, capacity_type, service_class = table
    return (
        f"{prices} SELECT {row}.hour, {flavour}, {resource}, {capacity_type}, {service_class}, {spans}, {units}, {gpu}"
        f" FROM {rows} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"
    )


def _split_insert(table: tuple[str, ...]) -> str:
    prices, rows, row, kind, flavour, model, _, spans, units, gpu, capacity_type, service_class = table
    # The first piece bears the uid of what is charged for; those that follow one made of it and their number.
    later = f"encode(sha256(uuid_send({row}.uid) || int4send(piece.number)), 'hex')"
    uid = f"overlay(overlay(left({later}, 32) PLACING '8' FROM 13) PLACING '8' FROM 17)::uuid"
    return f"""{prices},
piece AS MATERIALIZED (
  SELECT key.hour, key.flavour_id, key.resource, key.capacity_type, key.service_class, p.spans::integer[] AS spans,
    p.units, p.gpu, p.number, p.rate_id, p.quantity_ms, p.gpu_ms
  FROM unnest(%(key_hours)s::timestamptz[], %(key_flavours)s::bigint[], %(key_resources)s::text[],
    %(key_types)s::text[], %(key_classes)s::text[])
    WITH ORDINALITY key (hour, flavour_id, resource, capacity_type, service_class, n)
  JOIN unnest(%(keys)s::integer[], %(spans)s::text[], %(units)s::bigint[], %(gpu)s::bigint[], %(numbers)s::integer[],
    %(rates)s::bigint[], %(quantities)s::bigint[], %(gpu_parts)s::bigint[])
    p (key, spans, units, gpu, number, rate_id, quantity_ms, gpu_ms) ON p.key = key.n
)
{_INSERT}
SELECT one.hour, CASE piece.number WHEN 0 THEN one.uid ELSE {uid.replace(f"{row}.uid", "one.uid")} END, one.kind,
  one.cluster_id, {_OWNER.format("one")}, one.flavour_id, one.gpu_model, piece.rate_id, piece.quantity_ms,
  piece.gpu_ms, one.uid, one.revision, one.environment, one.capacity_type, one.service_class
FROM (
  SELECT {row}.hour, {row}.uid, {kind} AS kind, {row}.cluster_id, {_OWNER.format(row)}, {flavour} AS flavour_id,
    {model} AS gpu_model, {spans} AS spans, {units} AS units, {gpu} AS gpu, {row}.revision, {row}.environment,
    {capacity_type} AS capacity_type, {service_class} AS service_class, {table[6]} AS resource
  FROM {rows}
) one
JOIN piece ON piece.hour = one.hour AND piece.flavour_id = coalesce(one.flavour_id, 0)
  AND piece.resource = one.resource AND piece.capacity_type = one.capacity_type
  AND piece.service_class = one.service_class AND piece.spans = one.spans AND piece.units = one.units
  AND piece.gpu = one.gpu"""


#: By table: (what differs among the rows that a price splits; INSERT of the pieces of so many shapes).
SPLITS = tuple((_split_shapes(table), _split_insert(table)) for table in _SPLIT_TABLES)

#: Everything chargeable of hours, in one form: … flavour, model, resource, spans, quantities.
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
