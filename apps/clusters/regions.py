"""The vocabulary of places: countries by ISO 3166-1 alpha-2, and groups of them as dated data with their source. Pure.

A rule may name a country or a group, and so may a cluster. "EU" covers DE; "DE" is not covered by "EU", because what
says only "EU" may stand in any member. What is in no vocabulary is unknown, and unknown is within nothing but itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date

#: ISO 3166-1 alpha-2, officially assigned codes (ISO 3166 Maintenance Agency; 249 of them in November 2026).
COUNTRIES = frozenset((
    "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ", "BA", "BB",
    "BD", "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS", "BT", "BV", "BW", "BY",
    "BZ", "CA", "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN", "CO", "CR", "CU", "CV", "CW", "CX",
    "CY", "CZ", "DE", "DJ", "DK", "DM", "DO", "DZ", "EC", "EE", "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK",
    "FM", "FO", "FR", "GA", "GB", "GD", "GE", "GF", "GG", "GH", "GI", "GL", "GM", "GN", "GP", "GQ", "GR", "GS",
    "GT", "GU", "GW", "GY", "HK", "HM", "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IM", "IN", "IO", "IQ", "IR",
    "IS", "IT", "JE", "JM", "JO", "JP", "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KY", "KZ", "LA",
    "LB", "LC", "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK",
    "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS", "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NC", "NE",
    "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU", "NZ", "OM", "PA", "PE", "PF", "PG", "PH", "PK", "PL", "PM",
    "PN", "PR", "PS", "PT", "PW", "PY", "QA", "RE", "RO", "RS", "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG",
    "SH", "SI", "SJ", "SK", "SL", "SM", "SN", "SO", "SR", "SS", "ST", "SV", "SX", "SY", "SZ", "TC", "TD", "TF",
    "TG", "TH", "TJ", "TK", "TL", "TM", "TN", "TO", "TR", "TT", "TV", "TW", "TZ", "UA", "UG", "UM", "US", "UY",
    "UZ", "VA", "VC", "VE", "VG", "VI", "VN", "VU", "WF", "WS", "YE", "YT", "ZA", "ZM", "ZW"
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """A group of countries for a time: from `since` until before `until` (None: to this day)."""

    code: str
    name: str
    members: frozenset[str]
    since: date
    until: date | None
    source: str


_EU27 = frozenset((
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU",
    "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"
))  # fmt: skip
# Parts of members that have codes of their own and where the Treaties apply (Art. 349 and 355 TFEU): the French
# outermost regions, and Åland. Overseas countries and territories (Art. 198 TFEU) are none of them.
_EU_PARTS = frozenset((
    "AX", "GF", "GP", "MF", "MQ", "RE", "YT"
))  # fmt: skip
_LEFT = date(2020, 2, 1)
GROUPS = (
    Group("EU", "European Union", _EU27 | _EU_PARTS | {"GB"}, date(2013, 7, 1), _LEFT,
          "Treaty concerning the accession of Croatia, OJ L 112, 24.4.2012"),
    Group("EU", "European Union", _EU27 | _EU_PARTS, _LEFT, None,
          "Agreement on the withdrawal of the United Kingdom, OJ L 29, 31.1.2020; Art. 349, 355 TFEU"),
    Group("EEA", "European Economic Area", _EU27 | _EU_PARTS | {"GB", "IS", "LI", "NO"}, date(2014, 4, 12), _LEFT,
          "EEA Agreement, OJ L 1, 3.1.1994; Croatia from 12.4.2014, OJ L 170, 11.6.2014"),
    Group("EEA", "European Economic Area", _EU27 | _EU_PARTS | {"IS", "LI", "NO"}, _LEFT, None,
          "EEA Agreement, OJ L 1, 3.1.1994; withdrawal of the United Kingdom, OJ L 29, 31.1.2020"),
    Group("UK", "United Kingdom", frozenset({"GB"}), date(1974, 1, 1), None,
          "ISO 3166-1: GB; UK is exceptionally reserved for it"),
)  # fmt: skip
CODES = frozenset(group.code for group in GROUPS)
HINT = "A country's two letters (ISO 3166-1, such as DE, US, GB) or a group: EU, EEA, UK."


def known(code: str) -> bool:
    """Whether a code is a country or a group."""
    return code in COUNTRIES or code in CODES


def members(code: str, day: date | None = None) -> frozenset[str]:
    """Return the countries that a code means on a day (None: to this day): a country is its own only member."""
    if code in COUNTRIES:
        return frozenset({code})
    for group in GROUPS:
        now = group.until is None if day is None else group.since <= day and (group.until is None or day < group.until)
        if group.code == code and now:
            return group.members
    return frozenset()


def within(stated: str, wanted: Collection[str], day: date | None = None) -> bool:
    """Whether whatever says that it stands in `stated` stands in one of the places `wanted`, wherever in it."""
    if not stated:
        return False
    if stated in wanted:
        return True
    there = members(stated, day)
    allowed = frozenset().union(*(members(one, day) for one in wanted))
    return bool(there) and there <= allowed
