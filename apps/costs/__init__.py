"""Charges, distribution, budgets."""
