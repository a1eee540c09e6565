"""Workspaces, quotas, quota requests, the pool ledger."""
