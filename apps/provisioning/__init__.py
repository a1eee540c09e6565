"""Declarations, plans, apply runs, observation, drift."""
