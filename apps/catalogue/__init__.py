"""Models, immutable versions, cards, evidence, controls, registry sync."""
