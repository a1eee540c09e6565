"""Events of adopted namespaces; names are audit actions, outbox types and webhook types at once."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from apps.core.events import declare


@dataclass(frozen=True, slots=True)
class NamespaceAdopted:
    """A namespace that was there already became a workspace. `quotas`: flavour → guaranteed units from now on."""

    change_uid: uuid.UUID
    workspace_uid: uuid.UUID
    cluster: str
    namespace: str
    team_uid: uuid.UUID
    environment: str
    quotas: dict[str, int]


NAMESPACE_ADOPTED = declare("quotas.namespace.adopted", NamespaceAdopted, audience="auditors")
