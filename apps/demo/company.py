"""The sample company as data: who belongs where, what the pool holds, what each team has; no usage, no cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

MAIL_DOMAIN = "example.com"
#: Months of history that the portal meters at the first start.
HISTORY_MONTHS = 13

GPU_MODEL = "NVIDIA-A100-SXM4-80GB"
FLAVOUR_SLUG = "a100-80gb"
POOL_GPUS = 50
HOURLY_RATE = Decimal("3.85")
CURRENCY = "USD"
CLUSTER_SLUG = "atlas"
BOREALIS_SLUG = "borealis"
BURST_MODEL = "NVIDIA-H100-80GB-HBM3"
BURST_SLUG = "h100-80gb-cloud"
BURST_GPUS = 32
#: Price of one physical GPU and hour on the second cluster; a slice costs its share.
MODEL_RATES = {
    "NVIDIA-A100-SXM4-80GB": Decimal("3.85"),
    "NVIDIA-L4": Decimal("0.80"),
    "NVIDIA-H100-80GB-HBM3": Decimal("6.90"),
}
CENT = Decimal("0.01")


@dataclass(frozen=True)
class Person:
    """Somebody who can sign in, named by role."""

    key: str
    display_name: str
    #: (role, scope kind, slug of the unit or team; "" for the installation)
    grants: tuple[tuple[str, str, str], ...] = ()
    member_of: str = ""
    summary: str = ""

    @property
    def email(self) -> str:
        """The address the person signs in with."""
        return f"{self.key}@{MAIL_DOMAIN}"


@dataclass(frozen=True)
class TeamPlan:
    """A team, its one workspace and what it holds."""

    slug: str
    name: str
    cost_centre: str
    lead: str
    environment: str
    guaranteed: int
    borrow_limit: int
    budget: Decimal
    data_classes: tuple[str, ...] = field(default=("internal",))


@dataclass(frozen=True)
class BorealisPlan:
    """What a team asks for on the second cluster. `flavour`: how to find it; `days` 0: without end."""

    team: str
    lead: str
    environment: str
    flavour: dict[str, str]
    guaranteed: int
    reason: str
    days: int = 0
    recurrence: dict[str, Any] | None = None
    decided: bool = True
    data_classes: tuple[str, ...] = field(default=("internal",))


BOREALIS_TEAMS: tuple[BorealisPlan, ...] = (
    BorealisPlan(
        "research",
        "research-lead",
        "development",
        {"resource_name": "nvidia.com/mig-1g.10gb"},
        6,
        "Notebooks need a slice each, not a whole GPU.",
    ),
    BorealisPlan(
        "marketing",
        "marketing-lead",
        "staging",
        {"gpu_model": "NVIDIA-L4"},
        4,
        "Try the ranking service on shared GPUs before the season.",
        days=60,
    ),
    BorealisPlan(
        "finance",
        "finance-lead",
        "production",
        {"slug": BURST_SLUG},
        32,
        "Fraud training for 48 hours every weekend, from a pool that is empty at rest.",
        days=180,
        recurrence={"days": [5], "start": "00:00", "minutes": 2880},
        data_classes=("financial",),
    ),
)

UNITS: tuple[tuple[str, str, str | None, str], ...] = (
    # slug, name, parent slug, cost centre
    ("example-group", "Example Group", None, "CC-1000"),
    ("business-lines", "Business Lines", "example-group", "CC-1100"),
)

TEAMS: tuple[TeamPlan, ...] = (
    TeamPlan("finance", "Finance", "CC-1110", "finance-lead", "production", 20, 10, Decimal("26000"), ("financial",)),
    TeamPlan("marketing", "Marketing", "CC-1120", "marketing-lead", "production", 15, 0, Decimal("20000")),
    TeamPlan("research", "Research", "CC-1130", "research-lead", "development", 10, 10, Decimal("34000")),
)
TEAM_UNIT = "business-lines"

PEOPLE: tuple[Person, ...] = (
    Person(
        "finance-lead",
        "Finance team lead",
        (("team_lead", "team", "finance"),),
        "finance",
        "requests quota for Finance",
    ),
    Person("finance-engineer", "Finance engineer", (), "finance", "uses Finance's workspaces"),
    Person(
        "marketing-lead",
        "Marketing team lead",
        (("team_lead", "team", "marketing"),),
        "marketing",
        "requests for Marketing",
    ),
    Person(
        "research-lead", "Research team lead", (("team_lead", "team", "research"),), "research", "requests for Research"
    ),
    Person(
        "vp", "VP Business Lines", (("unit_owner", "unit", "business-lines"),), "", "decides, reads the monthly report"
    ),
    Person(
        "group-owner",
        "Head of Example Group",
        (("unit_owner", "unit", "example-group"),),
        "",
        "decides what the VP requests",
    ),
    Person(
        "compliance", "Compliance officer", (("compliance", "installation", ""),), "", "decides which models may run"
    ),
    Person(
        "deputy-compliance",
        "Deputy compliance officer",
        (("compliance", "installation", ""),),
        "",
        "reviews emergencies that the first one decided",
    ),
    Person("admin", "Platform admin", (("platform_admin", "installation", ""),), "", "clusters, pools, runs, policies"),
    Person(
        "operator",
        "Platform operator",
        (("platform_admin", "installation", ""),),
        "",
        "decides what the admin requests",
    ),
    Person("controller", "Finance controller", (("finance", "installation", ""),), "", "prices, months, statements"),
    Person(
        "deputy-controller",
        "Deputy controller",
        (("finance", "installation", ""),),
        "",
        "the second person for prices, credits, months",
    ),
    Person("auditor", "Auditor", (("auditor", "installation", ""),), "", "reads everything, changes nothing"),
)

QUOTA_POLICY = {
    "validity_days": 365,
    "automatic": [
        {
            "name": "Small change within budget and room",
            "when": [
                ["delta_gpus", "le", 2],
                ["fits_now", "eq", "yes"],
                ["within_budget", "eq", "yes"],
                ["borrow_mode", "ne", "unlimited"],
            ],
            "counts": {"fact": "auto_approved_30d_gpus", "adds": "delta_gpus", "limit": 4},
        }
    ],
    "stages": [
        {"name": "Unit owner", "role": "unit_owner", "scope": "unit", "quorum": 1, "due_hours": 72},
        {
            "name": "Platform",
            "role": "platform_admin",
            "scope": "installation",
            "quorum": 1,
            "due_hours": 72,
            "when": [["delta_gpus", "gt", 16]],
        },
    ],
}

#: Changes of a workspace go to the unit's owner, changes of a whole cluster to a second platform admin.
CHANGE_POLICY = {
    "validity_days": 90,
    "stages": [
        {
            "name": "Unit owner",
            "role": "unit_owner",
            "scope": "unit",
            "quorum": 1,
            "due_hours": 72,
            "unless": [["of_cluster", "eq", "yes"]],
        },
        {
            "name": "Platform",
            "role": "platform_admin",
            "scope": "installation",
            "quorum": 1,
            "due_hours": 72,
            "when": [["of_cluster", "eq", "yes"]],
        },
    ],
}
