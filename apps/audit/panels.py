"""The audit room's entries in the navigation."""

from portal.panels import nav

nav("Audit trail", "audit:event-list", icon="history", order=40, permission="audit.event.view", group="Governance")
nav("Retention", "audit:retention", icon="lock", order=42, permission="audit.hold.view", group="Governance")
