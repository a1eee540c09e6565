"""The audit room's entry in the navigation."""

from portal.panels import nav

nav("Audit trail", "audit:event-list", icon="history", order=40, permission="audit.event.view", group="Governance")
