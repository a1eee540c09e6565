"""What a policy body may hold, with an example each, for the editor. Every example is read by the reader in a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_OWNER = '{"name": "Unit owner", "role": "unit_owner", "scope": "unit", "due_hours": 72}'


@dataclass(frozen=True, slots=True)
class Example:
    """One thing a body can say: `text` is a whole body that says it."""

    title: str
    meaning: str
    text: str


EXAMPLES: Final[tuple[Example, ...]] = (
    Example(
        "Stages",
        "Asked one after the other. scope: unit (of the paying unit), parent_unit, installation. A stage is asked "
        "where all of `when` hold and not all of `unless`; after due_hours the request lapses.",
        f"""{{
  "stages": [
    {_OWNER},
    {{
      "name": "Compliance", "role": "compliance", "scope": "installation", "quorum": 2, "due_hours": 120,
      "when": [["environment", "eq", "production"]]
    }}
  ]
}}""",
    ),
    Example(
        "Stages at the same time",
        "Consecutive stages with the same group (1 to 9, rising) are open together; the next group follows when all "
        "of them are complete.",
        """{
  "stages": [
    {"name": "Unit owner", "role": "unit_owner", "scope": "unit", "group": 1},
    {"name": "Compliance", "role": "compliance", "scope": "installation", "group": 1},
    {"name": "Platform", "role": "platform_admin", "scope": "installation", "group": 2}
  ]
}""",
    ),
    Example(
        "Wait, escalation, fallback",
        "wait_hours: no approval counts before; a rejection does. After escalate_hours the role of escalate_to may "
        "decide as well. fallback steps in where too few of the stage's own role are free of conflicts.",
        """{
  "stages": [
    {
      "name": "Compliance", "role": "compliance", "scope": "installation", "due_hours": 120, "wait_hours": 4,
      "escalate_hours": 72, "escalate_to": {"role": "platform_admin", "scope": "installation"},
      "fallback": {"role": "finance", "scope": "installation"}
    }
  ]
}""",
    ),
    Example(
        "Automatic and standard changes",
        "The first rule whose conditions all hold approves without asking anybody; counts limits all that was so "
        "approved. A standard change is lost for a team after a failure, until somebody restores it.",
        f"""{{
  "automatic": [
    {{
      "name": "Small change", "when": [["request.delta_gpus", "le", 2]],
      "counts": {{"fact": "team.auto_approved_30d", "adds": "request.delta_gpus", "limit": 4}}
    }},
    {{"name": "Same bytes again", "standard": true, "when": [["covered", "eq", "yes"]]}}
  ],
  "stages": [{_OWNER}]
}}""",
    ),
    Example(
        "Emergencies",
        "Instead of the stages: one role, for so many hours at most. It opens a review, due after review_hours; until "
        "somebody of review_role who took no part closes it, the team's next normal request is refused.",
        f"""{{
  "stages": [{_OWNER}],
  "emergency": {{
    "role": "compliance", "scope": "installation", "quorum": 1, "hours": 4, "review_hours": 72,
    "review_role": "compliance"
  }}
}}""",
    ),
    Example(
        "Proof and separation",
        "reauthenticate_minutes: the password is asked again before a decision, if the last time is longer ago. Who "
        "wrote a part of it never decides; who produced its evidence neither, unless evidence_producers is false.",
        f"""{{
  "stages": [{_OWNER}],
  "reauthenticate_minutes": 10,
  "separation": {{"authors": true, "evidence_producers": true}},
  "validity_days": 365
}}""",
    ),
    Example(
        "Terms",
        "Named numbers and words that the policy sets for what it approves; of several with one name the last whose "
        "conditions hold counts. Each kind of request knows its own.",
        f"""{{
  "stages": [{_OWNER}],
  "terms": [
    {{"name": "max_traffic", "value": 100}},
    {{"name": "max_traffic", "value": 50, "when": [["environment", "eq", "production"]]}}
  ]
}}""",
    ),
)
