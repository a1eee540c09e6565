"""The rates room in the navigation."""

from portal.panels import nav

nav("Rate cards", "rates:card-list", icon="receipt", order=40, group="Money")
