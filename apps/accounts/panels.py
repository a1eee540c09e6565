"""The accounts room's entry in the navigation."""

from portal.panels import nav

nav("People", "accounts:user-list", icon="users", order=30, permission="accounts.user.view", group="Governance")
nav(
    "Identity providers",
    "accounts:provider-list",
    icon="key",
    order=32,
    permission="accounts.provider.view",
    group="Governance",
)
