"""Events of the rates room."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class CardPublished:
    """A rate card was published. `prices`: flavour slug → price of one unit-hour as a decimal string."""

    card_uid: uuid.UUID
    cluster_uid: uuid.UUID
    valid_from: datetime
    currency: str
    prices: dict[str, str]
    superseded: list[str]
    imported: bool


CARD_PUBLISHED = declare("rates.card.published", CardPublished, audience="auditors")
