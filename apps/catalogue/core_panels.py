"""The catalogue's entries in the navigation."""

from __future__ import annotations

from portal.panels import nav

nav("Models", "catalogue:model-list", icon="stack-2", order=10, permission="catalogue.model.view", group="Models")
nav("Stores", "catalogue:store-list", icon="database", order=60, permission="catalogue.store.view", group="Models")
